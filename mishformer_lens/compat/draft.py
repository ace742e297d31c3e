"""A draft of the variant that a release without one needs, to be finished by hand."""

import ast
import dataclasses
import json
import textwrap
from collections.abc import Iterator

from mishformer_lens.engine import Edit, as_edits, failing_edits
from mishformer_lens.engine.edits import clean, parse_side, sole_expression
from mishformer_lens.engine.matching import Member, find_expressions, find_member, find_statements, nearest_statements
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.resolver import judge


@dataclasses.dataclass(frozen=True)
class Draft:
    """A variant file to be finished.

    Attributes:
        variant: the variant that fits best, from which the draft started.
        holding: how many of its edits hold in the new source.
        open: member and anchor of each edit that does not.
        text: the file: Python, with the edits that hold, and a comment in the place of each that does not.
        absent: why there is none, where the release does not have the family yet.
    """

    family: str
    release: str
    variant: str = ""
    holding: int = 0
    open: tuple[tuple[str, str], ...] = ()
    text: str = ""
    absent: str = ""


def draft_variant(family: Family, release: str, source: str) -> Draft:
    """A draft for ``source``, from the variant that fits it best."""
    variant = judge(family, source, release).variant
    entries = as_edits(variant.edits)
    failing = [(member, edit) for member, edit, _ in failing_edits(source, variant.edits)]
    tree = ast.parse(source)
    lines = [
        f'"""{family.name} from {release} on. Drafted from {variant.name}: say what is particular to them."""',
        "",
        "from mishformer_lens.engine import Edit",
        "",
        f"CACHE_ARGUMENT = {_quoted(variant.cache_argument)}",
        f"CACHE_BY_PLACE = {variant.cache_by_place!r}",
        f"ATTENTION = {variant.attention!r}",
        f"UNSUPPORTED: dict[str, str] = {dict(variant.unsupported)!r}",
        "",
        "EDITS = {",
    ]
    for member, edits in entries.items():
        lines.append(f"    {_quoted(member)}: [")
        for edit in edits:
            open_lines = _open_edit(tree, member, edit) if (member, edit) in failing else _written_edit(edit)
            lines += [f"        {line}".rstrip() for line in open_lines]
        lines.append("    ],")
    lines += ["}", ""]
    holding = sum(map(len, entries.values())) - len(failing)
    anchors = tuple((member, clean(edit.before)) for member, edit in failing)
    return Draft(family.name, release, variant.name, holding, anchors, "\n".join(lines))


def _written_edit(edit: Edit) -> Iterator[str]:
    yield "Edit("
    for side in (edit.before, edit.after):
        yield from textwrap.indent(f"{_quoted(clean(side))},", "    ").splitlines()
    if edit.count != 1:
        yield f"    count={edit.count},"
    yield "),"


def _open_edit(tree: ast.Module, member: str, edit: Edit) -> Iterator[str]:
    """A comment with the edit, the nearest statements in the new source, and where else its anchor occurs."""
    root = find_member(tree, member)
    before = parse_side(edit.before, "before", member)
    place = member if root is not None else "the whole module"
    found = "the member is gone" if root is None else f"the anchor occurs {len(_places(root, before))} times"
    yield f"# TODO: in {member} {found}, and this edit needs it {edit.count} times:"
    yield from _comment(clean(edit.before))
    yield "# It was replaced by:"
    yield from _comment(clean(edit.after))
    nearest = nearest_statements(root or tree, before)
    yield f"# Nearest in {place}:" if nearest else f"# There is nothing like it in {place}."
    for statement in nearest:
        yield from _comment(statement)
    elsewhere = [name for name, node in _functions(tree) if name != member and _places(node, before)]
    if elsewhere:
        yield f"# The anchor stands unchanged in: {', '.join(elsewhere)}."


def _places(root: ast.AST, before: list[ast.stmt]) -> list[object]:
    expression = sole_expression(before)
    return [*(find_statements(root, before) if expression is None else find_expressions(root, expression))]


def _functions(tree: ast.Module) -> Iterator[tuple[str, Member]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{each.name}", each) for each in node.body if isinstance(each, ast.FunctionDef))


def _comment(text: str) -> Iterator[str]:
    return (f"#     {line}".rstrip() for line in text.splitlines())


def _quoted(text: str) -> str:
    """A Python literal for ``text``, over several lines where it has several."""
    if "\n" not in text:
        return json.dumps(text, ensure_ascii=False)
    if '"""' in text or "\\" in text or text.endswith('"'):
        return repr(text)
    return f'"""\n{text}\n"""'
