"""Apply edits to the text of a module."""

import ast
import dataclasses
import textwrap
from collections.abc import Iterator

from mishformer_lens.engine.edits import Edit, Edits, as_edits, clean, parse_side, sole_expression
from mishformer_lens.engine.matching import (
    Member,
    Span,
    find_expressions,
    find_member,
    find_statements,
    nearest_statements,
)
from mishformer_lens.errors import AnchorMatchError, MemberNotFoundError, PatchError


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
        InvalidAnchorError, MemberNotFoundError, AnchorMatchError: as :func:`patch_source`.
    """
    before = parse_side(edit.before, "before", member)
    after = parse_side(edit.after, "after", member)
    root = _find(ast.parse(text), member)
    expression, replacement = sole_expression(before), sole_expression(after)
    if expression is not None and replacement is not None:
        spans = find_expressions(root, expression)
        new = _expression_text(edit, replacement)
    else:
        spans = find_statements(root, before)
        new = clean(edit.after) or "pass"
    if len(spans) != edit.count:
        raise _match_error(root, member, edit, before, len(spans))
    result = text.encode()
    for where in sorted(spans, reverse=True):
        result = _splice(result, where, textwrap.indent(new, " " * where[1]).lstrip().encode())
    return result.decode()


def _expression_text(edit: Edit, replacement: ast.expr) -> str:
    text = clean(edit.after)
    binds_tightest = isinstance(replacement, ast.Name | ast.Call | ast.Attribute | ast.Subscript | ast.Constant)
    return text if binds_tightest and "\n" not in text else f"({text})"


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
