"""How the members that edits touch moved between two releases, and which edits still hold."""

import ast
import dataclasses
import difflib
from collections.abc import Iterable, Iterator

from mishformer_lens.engine import Edits, as_edits, failing_edits, member_fingerprints
from mishformer_lens.engine.edits import clean
from mishformer_lens.engine.matching import find_member
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.resolver import judge

_CHANGES = {(True, True): "changed", (False, True): "added", (True, False): "removed"}


@dataclasses.dataclass(frozen=True)
class MemberChange:
    """One touched member in two releases.

    Attributes:
        change: ``same``, ``changed``, ``added``, ``removed`` or ``absent`` (in both). Comments, annotations and
            docstrings do not count.
        diff: a unified diff of its text; empty where it is the same.
    """

    member: str
    change: str
    diff: str = ""


@dataclasses.dataclass(frozen=True)
class Anchor:
    """One edit of a variant, held against a source.

    Attributes:
        before: the anchor.
        holds: whether it occurs as often as its edit declares.
        message: where it does not: how often it occurs, and what is nearest to it.
    """

    member: str
    before: str
    holds: bool
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Difference:
    """What changed for one family between two releases.

    Attributes:
        variant: the variant that serves the first release.
        members: every member that a variant of either release touches.
        anchors: every edit of ``variant``, held against the second release.
        absent: why there is nothing to compare, where one of the releases does not have the family yet.
    """

    family: str
    first: str
    second: str
    variant: str
    members: tuple[MemberChange, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    absent: str = ""


def compare(family: Family, first: tuple[str, str], second: tuple[str, str]) -> Difference:
    """What changed for ``family`` between two releases, each given as its number and its source."""
    verdicts = [judge(family, source, release) for release, source in (first, second)]
    members = dict.fromkeys(name for verdict in verdicts for name in verdict.variant.members)
    return Difference(
        family.name,
        first[0],
        second[0],
        verdicts[0].variant.name,
        tuple(compare_members(members, first, second)),
        tuple(hold_against(verdicts[0].variant.edits, second[1])),
    )


def compare_members(members: Iterable[str], first: tuple[str, str], second: tuple[str, str]) -> Iterator[MemberChange]:
    """How each of the top-level ``members`` differs between two releases, each given as its number and its source."""
    members = list(members)
    old, new = (member_fingerprints(source, members) for _, source in (first, second))
    for member in members:
        if old[member] == new[member]:
            yield MemberChange(member, "absent" if old[member] == "absent" else "same")
            continue
        change = _CHANGES[old[member] != "absent", new[member] != "absent"]
        before, after = (member_text(source, member).splitlines() for _, source in (first, second))
        lines = difflib.unified_diff(before, after, f"{member} in {first[0]}", f"{member} in {second[0]}", lineterm="")
        yield MemberChange(member, change, "\n".join(lines))


def hold_against(edits: Edits, source: str) -> Iterator[Anchor]:
    """Every edit, with whether it fits ``source``."""
    failures = {(member, edit): str(error) for member, edit, error in failing_edits(source, edits)}
    for member, entries in as_edits(edits).items():
        for edit in entries:
            message = failures.get((member, edit))
            yield Anchor(member, clean(edit.before), message is None, message or "")


def member_text(source: str, name: str) -> str:
    """The text of a class or function, decorators included; empty where ``source`` lacks it."""
    node = find_member(ast.parse(source), name)
    if node is None:
        return ""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])
