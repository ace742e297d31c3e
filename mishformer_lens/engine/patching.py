"""Apply edits to the text of a module."""

import ast
import dataclasses
import io
import textwrap
import tokenize
from collections.abc import Iterator

from mishformer_lens.engine.edits import Edit, Edits, as_edits, clean, parse_side, sole_expression
from mishformer_lens.engine.matching import (
    Member,
    Span,
    find_expressions,
    find_member,
    find_statements,
    nearest_statements,
    replace_expressions,
    replace_statements,
    same_code,
)
from mishformer_lens.errors import AnchorMatchError, MemberNotFoundError, PatchError, SpliceError


@dataclasses.dataclass(frozen=True)
class PatchedSource:
    """The text of a module with its edits in place.

    Attributes:
        original: the text that was patched.
        text: the patched text. Comments and formatting outside the edits are those of ``original``.
        members: the names of the classes and functions that the edits touch.
    """

    original: str
    text: str
    members: tuple[str, ...]


def patch_source(source: str, edits: Edits) -> PatchedSource:
    """Apply all ``edits`` to ``source``, those of one member in their order.

    Raises:
        InvalidAnchorError: a side of an edit is not complete Python.
        MemberNotFoundError: a member is not in ``source``.
        AnchorMatchError: an anchor occurs fewer or more times than declared.
        SpliceError: a replacement cannot stand where its anchor does.
        SyntaxError: ``source`` is not Python.
    """
    tree = ast.parse(source)
    patched: dict[str, tuple[Span, str]] = {}
    for member, entries in as_edits(edits).items():
        name = member.partition(".")[0]
        where, text = patched[name] if name in patched else _text_of(source, tree, name)
        for edit in entries:
            text = apply_edit(text, member, edit)
        patched[name] = where, text
    result = source.encode()
    for where, text in sorted(patched.values(), reverse=True):
        result = _splice(result, where, text.encode())
    return PatchedSource(original=source, text=result.decode(), members=tuple(patched))


def failing_edits(source: str, edits: Edits) -> Iterator[tuple[str, Edit, PatchError]]:
    """Every edit that does not fit ``source``, with the reason. Those that fit are applied before the next is tried.

    Yields:
        the member, the edit and what :func:`patch_source` would have raised for it.
    """
    tree = ast.parse(source)
    texts: dict[str, str] = {}
    for member, entries in as_edits(edits).items():
        name = member.partition(".")[0]
        for edit in entries:
            try:
                text = texts[name] if name in texts else _text_of(source, tree, name)[1]
                texts[name] = apply_edit(text, member, edit)
            except PatchError as error:
                yield member, edit, error


def apply_edit(text: str, member: str, edit: Edit) -> str:
    """Apply one edit to the text of the class or function that ``member`` names or lies in.

    Raises:
        InvalidAnchorError, MemberNotFoundError, AnchorMatchError, SpliceError: as :func:`patch_source`.
    """
    before = parse_side(edit.before, "before", member)
    after = parse_side(edit.after, "after", member)
    root = _find(ast.parse(text), member)
    anchor, replacement = sole_expression(before), sole_expression(after)
    if anchor is not None and replacement is not None:
        spans = find_expressions(root, anchor)
        new = _expression_text(edit, anchor, replacement)
    else:
        spans = find_statements(root, before)
        new = clean(edit.after) if after else f"{clean(edit.after)}\npass".strip()
    if len(spans) != edit.count:
        raise _match_error(root, member, edit, before, len(spans))
    result = text.encode()
    for where in sorted(spans, reverse=True):
        result = _splice(result, where, _indented(new, _indentation(result, where)).encode())
    if anchor is not None and replacement is not None:
        replace_expressions(root, anchor, replacement)
    else:
        replace_statements(root, before, after)
    if not same_code(_parsed(result.decode(), member), root):
        raise _splice_error(text, member, edit, spans)
    return result.decode()


def _expression_text(edit: Edit, anchor: ast.expr, replacement: ast.expr) -> str:
    text = ast.get_source_segment(clean(edit.after), replacement) or ""
    binds_tightest = isinstance(replacement, ast.Name | ast.Call | ast.Attribute | ast.Subscript | ast.Starred)
    # The positions of these take in the parentheses around them, in calls and after keywords too.
    owns_parentheses = isinstance(anchor, ast.GeneratorExp | ast.Tuple)
    return text if binds_tightest and not owns_parentheses and "\n" not in text else f"({text})"


def _indented(text: str, indentation: str) -> str:
    """``text`` with every line after the first indented, but for lines that begin inside a string."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    inside = {line for token in tokens for line in range(token.start[0] + 1, token.end[0] + 1)}
    first, *others = text.split("\n")
    indented = (
        line if number in inside or not line else indentation + line for number, line in enumerate(others, start=2)
    )
    return "\n".join([first, *indented])


def _indentation(text: bytes, where: Span) -> str:
    before = text.splitlines()[where[0] - 1][: where[1]].decode()
    return before if not before.strip() else " " * len(before)


def _parsed(text: str, member: str) -> Member | None:
    try:
        return find_member(ast.parse(text), member)
    except SyntaxError:
        return None


def _find(tree: ast.Module, member: str) -> Member:
    found = find_member(tree, member)
    if found is None:
        raise MemberNotFoundError(
            f"there is no {member} in this source: it was renamed, moved or removed. "
            "Find where its work is done now, and write the edits for that member."
        )
    return found


def _text_of(source: str, tree: ast.Module, name: str) -> tuple[Span, str]:
    """The lines of a top-level member, decorators included."""
    node = _find(tree, name)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None  # always set by ast.parse
    assert node.end_col_offset is not None
    where = (first, 0, node.end_lineno, node.end_col_offset)
    start, end = _offsets(source.encode(), where)
    return where, source.encode()[start:end].decode()


def _splice(text: bytes, where: Span, new: bytes) -> bytes:
    start, end = _offsets(text, where)
    return text[:start] + new + text[end:]


def _offsets(text: bytes, where: Span) -> tuple[int, int]:
    lines = text.splitlines(keepends=True)
    first, first_column, last, last_column = where
    start = sum(len(line) for line in lines[: first - 1]) + first_column
    end = sum(len(line) for line in lines[: last - 1]) + last_column
    return start, end


def _match_error(root: ast.AST, member: str, edit: Edit, before: list[ast.stmt], found: int) -> AnchorMatchError:
    nearest = nearest_statements(root, before)
    quoted = textwrap.indent(clean(edit.before), "    ")
    near = textwrap.indent("\n".join(nearest), "    ") if nearest else "    (nothing like it)"
    return AnchorMatchError(
        f"this anchor occurs {found} times in {member}, and its edit needs it {edit.count} times:\n{quoted}\n"
        f"The nearest statements in {member} are:\n{near}\n"
        "Quote the statements as they stand in this source, or declare how often they occur."
    )


def _splice_error(text: str, member: str, edit: Edit, spans: list[Span]) -> SpliceError:
    lines = [text.split("\n")[where[0] - 1].strip() for where in spans]
    return SpliceError(
        f"the replacement of this anchor in {member} would mean something else where it stands:\n"
        f"{textwrap.indent(clean(edit.before), '    ')}\nIt was found in:\n"
        f"{textwrap.indent(chr(10).join(lines), '    ')}\n"
        "Take everything on these lines into the anchor."
    )
