"""What an edit is, and how its two sides are read."""

import ast
import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from mishformer_lens.errors import InvalidAnchorError


@dataclasses.dataclass(frozen=True)
class Edit:
    """Replace ``before`` by ``after`` in one member of a module.

    Both sides are complete Python: one statement, a sequence of statements, or an expression. ``before`` has to be
    found exactly ``count`` times. When both sides are a single expression, ``before`` is found wherever the value of
    that expression is taken, also inside a larger one, but not inside an f-string.
    """

    before: str
    after: str
    count: int = 1


EditLike = Edit | tuple[str, str]
"""An :class:`Edit`, or a plain pair of the source before and after."""

Edits = Mapping[str, Sequence[EditLike] | Sequence[str]]
"""Member name (``"Class"``, ``"Class.method"`` or ``"function"``) to its edits, applied in order.

A flat list of texts, before and after in turn, stands for pairs, as in ``mishax``.
"""


def as_edits(edits: Edits) -> dict[str, list[Edit]]:
    """Give every pair the form of an :class:`Edit`.

    Raises:
        InvalidAnchorError: a text stands for a list, a flat list is of odd length, or an entry is no pair.
    """
    return {
        member: [_as_edit(member, entry) for entry in _paired(member, entries)] for member, entries in edits.items()
    }


def _paired(member: str, entries: Sequence[EditLike] | Sequence[str]) -> Sequence[object]:
    if isinstance(entries, str):
        raise InvalidAnchorError(f"the edits of {member} are one text: they need to be a list of pairs (before, after)")
    flat = [entry for entry in entries if isinstance(entry, str)]
    if not flat:
        return entries
    if len(flat) != len(entries) or len(flat) % 2:
        raise InvalidAnchorError(
            f"the edits of {member} mix single source blocks with pairs, or are odd in number ({len(entries)}): "
            "write pairs (before, after)"
        )
    return list(zip(flat[::2], flat[1::2], strict=True))


def _as_edit(member: str, entry: object) -> Edit:
    match entry:
        case Edit():
            return entry
        case (str() as before, str() as after):
            return Edit(before, after)
    raise InvalidAnchorError(f"an edit of {member} is {entry!r}: it needs to be a pair (before, after) of source text")


def clean(source: str) -> str:
    """The text of one side of an edit without common indentation and outer blank lines."""
    return textwrap.dedent(source).strip()


def parse_side(source: str, side: str, member: str) -> list[ast.stmt]:
    """Parse one side of an edit.

    Raises:
        InvalidAnchorError: the text is empty or is not complete Python.
    """
    try:
        statements = ast.parse(clean(source)).body
    except SyntaxError as error:
        raise InvalidAnchorError(
            f"the {side} side of an edit of {member} is not complete Python ({error.msg}, line {error.lineno}):\n"
            f"{textwrap.indent(clean(source), '    ')}\n"
            "An anchor must be whole statements or a whole expression; an incomplete statement can never match."
        ) from error
    if side == "before" and not statements:
        raise InvalidAnchorError(f"an edit of {member} has an empty anchor: quote the statements to be replaced")
    return statements


def sole_expression(statements: Sequence[ast.stmt]) -> ast.expr | None:
    """The expression, where the side is nothing but one."""
    match statements:
        case [ast.Expr(value=value)]:
            return value
    return None
