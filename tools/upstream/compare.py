"""What is different between HuggingFace's tests on plain models and on hooked ones."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from packaging.specifiers import SpecifierSet

HOOKED = ("idle", "observed")


@dataclass(frozen=True)
class Result:
    """What one test did in one run.

    Attributes:
        outcome: passed, failed, skipped or xfailed.
        reason: why it was skipped, or how it failed.
        outputs: the digest of every output of its models, in order.
        activations: how many activations were observed, by hook point without its block; 0 where none fired.
        hooked: how many models were hooked.
    """

    outcome: str
    reason: str = ""
    outputs: tuple[str, ...] = ()
    activations: Mapping[str, int] = field(default_factory=dict)
    hooked: int = 0


Run = dict[str, Result]
"""Every test of a run, by its id."""


@dataclass(frozen=True)
class Difference:
    """One test that did something else on hooked models.

    Attributes:
        run: idle or observed.
        kind: "outcome", or "output" where a digest is another; of a test that ended early, one of those that it has.
        lost: whether the test passes on plain models and not on hooked ones.
        what: what was seen.
    """

    test: str
    run: str
    kind: str
    lost: bool
    what: str


@dataclass(frozen=True)
class Declared:
    """A difference that is known, with its cause.

    Attributes:
        test: the tests' ids, as a pattern; `[[]` stands for `[`.
        releases: the releases of transformers, as a specifier.
        run: idle or observed; both, if empty.
        kind: outcome or output. A test that is known to be lost is still compared in what it gave.
    """

    test: str
    releases: str
    cause: str
    run: str = ""
    kind: str = "outcome"

    def covers(self, difference: Difference) -> bool:
        """Whether it is this difference that was declared."""
        if self.kind != difference.kind or self.run not in ("", difference.run):
            return False
        return fnmatch.fnmatchcase(difference.test, self.test)


class ComparisonError(Exception):
    """The runs cannot be compared, or prove nothing."""


@dataclass(frozen=True)
class Comparison:
    """What the runs of one release say.

    Attributes:
        not_repeatable: tests that do not do the same twice on plain models, with what was seen.
        differences: between plain and hooked models, in the other tests.
    """

    plain: Run
    hooked: dict[str, Run]
    not_repeatable: dict[str, str]
    differences: tuple[Difference, ...]

    def unobserved(self) -> list[str]:
        """Tests whose hooked models gave outputs, and whose observers saw nothing."""
        observed = self.hooked["observed"].items()
        return [name for name, test in observed if test.outputs and test.hooked and not any(test.activations.values())]

    def activations(self) -> dict[str, Counter[str]]:
        """How many activations were observed, by the file of the tests and the hook point; 0 where none fired."""
        total: dict[str, Counter[str]] = {}
        for name, test in self.hooked["observed"].items():
            counted = total.setdefault(name.partition("::")[0], Counter())
            for point, number in test.activations.items():
                counted[point] += number
        return total

    def never_fired(self) -> list[str]:
        """Hook points that models had and that fired in no test, with the file of the tests."""
        counted = self.activations().items()
        return [f"{file}: {point}" for file, points in counted for point, number in points.items() if not number]


def read_run(path: Path) -> Run:
    """A run that the plugin recorded. Raises ComparisonError where there is none, or no test in it."""
    if not path.is_file():
        raise ComparisonError(f"{path.stem}: pytest recorded nothing: it did not come to its end")
    tests = json.loads(path.read_text(encoding="utf-8"))
    if not tests:
        raise ComparisonError(f"{path.stem}: no test was run")
    return {name: Result(**(values | {"outputs": tuple(values["outputs"])})) for name, values in tests.items()}


def read_declared(path: Path, release: str) -> list[Declared]:
    """What is declared for a release. Raises ComparisonError for an entry without a cause or with an unknown field."""
    known = {each.name for each in fields(Declared)}
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("expected", []):
        complete = all(entry.get(name, "").strip() for name in ("test", "releases", "cause"))
        named = entry.get("run", "") in ("", *HOOKED) and entry.get("kind", "outcome") in ("outcome", "output")
        if not complete or not named or not known >= set(entry):
            raise ComparisonError(
                f"{path.name}: an entry has a test, releases and a cause, and may have a run: {entry}"
            )
        found.append(Declared(**entry))
    return [each for each in found if SpecifierSet(each.releases, prereleases=True).contains(release)]


def compare(plain: Run, again: Run, hooked: dict[str, Run]) -> Comparison:
    """Compares two runs on plain models, and then the first with each on hooked models.

    Raises ComparisonError where that would prove nothing: other tests were run, no model gave anything, none was
    hooked, or no hook fired.
    """
    for name, run in {"again": again, **hooked}.items():
        if set(run) != set(plain):
            only = sorted(set(run) ^ set(plain))
            raise ComparisonError(f"{name}: other tests were run than in plain, {only[0]} among {len(only)}")
    if not any(test.outputs for test in plain.values()):
        raise ComparisonError("plain: no model gave any output, so there is nothing to compare")
    for name, run in hooked.items():
        if not any(test.hooked for test in run.values()):
            raise ComparisonError(f"{name}: no model was hooked")
    if not any(number for test in hooked["observed"].values() for number in test.activations.values()):
        raise ComparisonError("observed: no hook fired")
    noise = {test: what for test, _, what in _differing(plain, again)}
    differences = [
        Difference(test, name, kind, kind == "outcome" and plain[test].outcome == "passed", what)
        for name, run in hooked.items()
        for test, kind, what in _differing(plain, run)
        if test not in noise
    ]
    return Comparison(plain, hooked, noise, tuple(differences))


def _differing(first: Run, second: Run) -> Iterator[tuple[str, str, str]]:
    for name, before in first.items():
        after = second[name]
        one, other = before.outputs, after.outputs
        if before.outcome != after.outcome:
            yield name, "outcome", f"{before.outcome}, then {after.outcome}: {after.reason or before.reason}"
            # One of the two ended early: what both gave has to be the same.
            common = min(len(one), len(other))
            one, other = one[:common], other[:common]
        if one != other:
            yield name, "output", _first_difference(one, other)


def _first_difference(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    for index, (one, other) in enumerate(zip(before, after, strict=False)):
        if one != other:
            return f"output {index + 1} of {len(before)} is {one}, then {other}"
    return f"{len(before)} outputs, then {len(after)}"


def report(release: str, comparison: Comparison, declared: Iterable[Declared]) -> tuple[list[str], bool]:
    """The lines to print, and whether everything is as it should be."""
    declared = list(declared)
    differences = comparison.differences
    unknown = [each for each in differences if not any(entry.covers(each) for entry in declared)]
    stale = [entry for entry in declared if not any(entry.covers(each) for each in differences)]
    unobserved, never = comparison.unobserved(), comparison.never_fired()
    lines = [f"transformers {release}", *_table(comparison)]
    lines += [f"not repeatable on plain models: {name}: {what}" for name, what in comparison.not_repeatable.items()]
    lines += [f"hooked, but nothing was observed: {name}" for name in unobserved]
    lines += [f"NEVER FIRED: {name}" for name in never]
    for each in differences:
        cause = next((entry.cause for entry in declared if entry.covers(each)), None)
        known = f"declared: {cause}" if cause else "NOT DECLARED"
        lines.append(f"{each.run}, {each.kind}: {each.test}: {each.what}\n    {known}")
    lines += [f"DECLARED, BUT DID NOT OCCUR: {entry.test} on {entry.releases}: {entry.cause}" for entry in stale]
    return lines, not (unknown or stale or never)


def _table(comparison: Comparison) -> Iterator[str]:
    plain = comparison.plain
    passed = sum(test.outcome == "passed" for test in plain.values())
    compared = [test for name, test in plain.items() if name not in comparison.not_repeatable]
    digests = sum(len(test.outputs) for test in compared)
    rows = {
        "tests": len(plain),
        "passed on plain models": passed,
        "not repeatable": len(comparison.not_repeatable),
        "digests compared": digests,
    }
    for name in HOOKED:
        found = [each for each in comparison.differences if each.run == name]
        rows[f"{name}: lost"] = sum(each.lost for each in found)
        rows[f"{name}: another outcome"] = sum(each.kind == "outcome" and not each.lost for each in found)
        rows[f"{name}: tests whose digests differ"] = sum(each.kind == "output" for each in found)
        rows[f"{name}: models hooked"] = sum(test.hooked for test in comparison.hooked[name].values())
    rows["observed: activations"] = sum(points.total() for points in comparison.activations().values())
    for name, number in rows.items():
        yield f"  {name:<38}{number:>9}"
