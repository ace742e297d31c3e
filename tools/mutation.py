"""Shows that the conformance suite catches every mistake that an edit could have.

    python tools/mutation.py                  every form of an edit once, with the installed transformers
    python tools/mutation.py --family NAME    every edit of one family
    python tools/mutation.py --among NAME...  every form of an edit once, of these families
    python tools/mutation.py --json FILE      and what happened to each mutant
    python tools/mutation.py --only TEXT      the mutants with this in their names: does a new test catch them?
    python tools/mutation.py TEST...          with some of the tests only

The suite is collected once. Each mutant is then put in place in a forked process, which runs the suite until the first
test fails; the tests that caught most so far run first. No file is touched.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import difflib
import importlib.metadata
import json
import os
import signal
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mishformer_lens.engine import as_edits  # noqa: E402 - the path is set first
from mishformer_lens.engine.edits import clean  # noqa: E402
from mishformer_lens.patchers import FAMILIES, Family, Variant  # noqa: E402
from mishformer_lens.patchers.installed import installed_source  # noqa: E402
from mishformer_lens.patchers.releases import has_begun  # noqa: E402
from mishformer_lens.patchers.resolver import judge  # noqa: E402
from tools.mutants import Mutant, make_mutants  # noqa: E402

EQUIVALENT = ROOT / "tests" / "conformance" / "equivalent_mutants.toml"
# What an edit does shows in these first; the comparisons of idle models take longest and show least.
TESTS = (
    "test_firing.py",
    "test_mutation_gaps.py",
    "test_reach.py",
    "",
    "test_idle_identity.py",
)
SECONDS_FOR_ONE = 900


@dataclasses.dataclass
class Trial:
    """What happened to a mutant; without one, to the edits as they are.

    Attributes:
        outcome: ``survived``, ``killed``, ``does not run`` (not even an idle forward pass), or ``died``.
        killer: the first test that failed.
    """

    variant: Variant
    mutant: Mutant | None
    outcome: str = ""
    killer: str = ""

    @property
    def name(self) -> tuple[str, str, str]:
        assert self.mutant is not None
        return self.variant.family, self.mutant.member, self.mutant.what

    @property
    def counts(self) -> bool:
        """Whether it says something about the suite: what cannot even run is no mistake that anybody could overlook."""
        return self.mutant is not None and (self.mutant.drops_edit or self.outcome != "does not run")

    @property
    def caught(self) -> bool:
        return self.outcome not in ("survived", "")


class MutationRun:
    """A pytest plugin: instead of one run of the collected tests, one for each trial, in a process of its own."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = trials
        self.kills: collections.Counter[str] = collections.Counter()
        self.seconds: dict[str, float] = {}
        self.report_to: int | None = None
        """In a forked process: where to write how each test went."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # pytest itself says what could not be collected
        for number, trial in enumerate(self.trials):
            sys.stdout.flush()
            read, write = os.pipe()
            process = os.fork()
            if process == 0:
                os.close(read)
                self.report_to = write
                self._become(trial, session)
                return None
            os.close(write)
            with os.fdopen(read) as report:
                self._read(trial, [json.loads(line) for line in report])
            _, status = os.waitpid(process, 0)
            trial.outcome = _outcome(os.waitstatus_to_exitcode(status))
            where = f"{number}/{len(self.trials) - 1} {trial.variant.family}"
            what = f"{trial.mutant.member}: {trial.mutant.what}" if trial.mutant else "no mutant"
            print(f"{where} {what}: {trial.outcome} {trial.killer}", flush=True)
            if trial.mutant is None and trial.caught:
                pytest.exit(f"the suite fails without any mutant: {trial.killer or trial.outcome}", returncode=2)
        return True

    def _read(self, trial: Trial, tests: Sequence[dict[str, Any]]) -> None:
        for test in tests:
            if test["failed"]:
                trial.killer = trial.killer or test["test"]
                self.kills[test["test"]] += 10
                self.kills[_function_of(test["test"])] += 1
            elif trial.mutant is None:
                self.seconds[test["test"]] = test["seconds"]

    def _cost(self, item: pytest.Item) -> float:
        """The seconds that a test takes, by ten times the mutants that it caught, and once those that its function
        caught with other parameters, as with another family: what to run first."""
        return self.seconds.get(item.nodeid, 0.0) / (
            1 + self.kills[item.nodeid] + self.kills[_function_of(item.nodeid)]
        )

    def _become(self, trial: Trial, session: pytest.Session) -> None:
        signal.alarm(SECONDS_FOR_ONE)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        # pytest imports plugins in a way of its own, and complains of those that were imported before.
        from tests.outcome_plugin import where

        family = FAMILIES[trial.variant.family]
        items = [item for item in session.items if where(item).family in ("", family.name)]
        session.items = sorted(items, key=self._cost)
        if trial.mutant is not None:
            replace_edits(family, trial.variant, trial.mutant)
            if not trial.mutant.drops_edit:
                forward_once(family, trial.variant)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.report_to is not None and (report.failed or report.when == "call"):
            line = {"test": report.nodeid, "failed": report.failed, "seconds": report.duration}
            os.write(self.report_to, (json.dumps(line) + "\n").encode())


def _function_of(test: str) -> str:
    """A test's name without its parameters."""
    return test.partition("[")[0]


def _outcome(exit_code: int) -> str:
    codes = {
        0: "survived",
        int(pytest.ExitCode.TESTS_FAILED): "killed",
        int(pytest.ExitCode.INTERNAL_ERROR): "does not run",
    }
    return codes.get(exit_code, "died")


def replace_edits(family: Family, variant: Variant, mutant: Mutant) -> None:
    """Let the family's table of variants, which this process has read, have the mutant's edits."""
    mutated = dataclasses.replace(variant, edits=mutant.edits)
    vars(family)["variants"] = tuple(mutated if each is variant else each for each in family.variants)


def forward_once(family: Family, variant: Variant) -> None:
    """Run tiny models once, every part lent, no hook on: raises what a mutant that cannot run raises."""
    import mishformer_lens
    from tests.kinds import kinds
    from tests.models import KINDS, Case, make_model, make_tokens

    for kind in (*KINDS, *kinds()):
        for attention in ("eager", "sdpa"):
            case = Case(kind, attention)
            if case.family == family.name and attention in variant.attention:
                model = make_model(case)
                instrumentation = mishformer_lens.instrument(model)
                with contextlib.ExitStack() as lent:
                    for place in instrumentation.places():
                        lent.enter_context(place.lent())
                    model(make_tokens())


Form = tuple[str, str]
"""A member without the prefix of its family's class names, and the edits of it."""


def forms_of(family: Family, variant: Variant) -> dict[str, Form]:
    """Member to its form. Families that have a form in common share its mutants: what catches them is the same."""
    prefix = family.prefix or None
    return {
        member: (
            member.removeprefix(family.prefix) if prefix else f"{family.name} {member}",
            repr([(clean(edit.before), clean(edit.after), edit.count) for edit in edits]),
        )
        for member, edits in as_edits(variant.edits).items()
    }


def choose_members(variants: Sequence[tuple[Family, Variant]]) -> dict[str, set[str]]:
    """Family to the members whose mutants are tried with it, so that every form is tried once, with few families.

    Those with the most forms that no other has so far come first: a few families, each with many of its members.
    """
    open_forms = {family.name: forms_of(family, variant) for family, variant in variants}
    chosen: dict[str, set[str]] = {}
    tried: set[Form] = set()
    while open_forms:
        left = {name: {m for m, form in forms.items() if form not in tried} for name, forms in open_forms.items()}
        name = max(left, key=lambda each: len(left[each]))
        if not left[name]:
            break
        chosen[name] = left[name]
        tried |= set(open_forms.pop(name).values())
    return chosen


def make_trials(families: Iterable[Family], *, each_form_once: bool = False) -> list[Trial]:
    """For each family, first the edits as they are, then every mutant of the variant for the installed release.

    Families that the release does not have are left out; with `each_form_once`, those whose forms others have too.
    """
    release = importlib.metadata.version("transformers")
    found = [(each, installed_source(each).text) for each in families if has_begun(each, release)]
    variants = [(family, judge(family, source, release).variant, source) for family, source in found]
    chosen = choose_members([(family, variant) for family, variant, _ in variants]) if each_form_once else None
    trials = []
    for family, variant, source in variants:
        members = set(variant.edits) if chosen is None else chosen.get(family.name, set())
        mutants = [mutant for mutant in make_mutants(source, variant.edits) if mutant.member in members]
        if mutants:
            trials += [Trial(variant, None), *(Trial(variant, mutant) for mutant in mutants)]
    return trials


def read_equivalent(path: Path, variants: Iterable[Variant]) -> dict[tuple[str, str, str], str]:
    """Family, member and mutation of the mutants of ``variants`` that are listed as equivalent, to the reason."""
    names = {(variant.family, variant.name) for variant in variants}
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        (entry["family"], entry["member"], what): entry["reason"]
        for entry in table.get("equivalent", [])
        for what in entry["mutants"]
        for name in entry["variants"]
        if (entry["family"], name) in names
    }


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the trials of one variant show."""

    variant: Variant
    edits: int
    edits_caught: int
    mutants: int
    killed: int
    equivalent: int
    survivors: tuple[Trial, ...]


def summarize(variant: Variant, trials: Sequence[Trial], equivalent: Iterable[tuple[str, str, str]]) -> Summary:
    counted = [trial for trial in trials if trial.variant is variant and trial.counts]
    drops = [trial for trial in counted if trial.mutant is not None and trial.mutant.drops_edit]
    listed = set(equivalent)
    return Summary(
        variant=variant,
        edits=len(drops),
        edits_caught=sum(trial.caught for trial in drops),
        mutants=len(counted),
        killed=sum(trial.caught for trial in counted),
        equivalent=sum(not trial.caught and trial.name in listed for trial in counted),
        survivors=tuple(trial for trial in counted if not trial.caught and trial.name not in listed),
    )


def problems(trials: Sequence[Trial], equivalent: Iterable[tuple[str, str, str]]) -> list[str]:
    """What is wrong with the list of equivalent mutants, as far as it is of members that were tried."""
    tried = {trial.name[:2] for trial in trials if trial.mutant is not None}
    outcomes = {trial.name: trial for trial in trials if trial.mutant is not None}
    found = []
    for name in equivalent:
        family, member, _ = name
        if (family, member) not in tried and FAMILIES[family].template is not None:
            continue  # another family with the same form was tried
        if name not in outcomes:
            found.append(f"{': '.join(name)} is listed as equivalent, but there is no such mutant")
        elif outcomes[name].caught:
            found.append(f"{': '.join(name)} is listed as equivalent, but {outcomes[name].killer} caught it")
    return found


def table_of(variant: Variant, trials: Sequence[Trial]) -> str:
    """One line per edit: what became of its mutants."""
    lines = []
    for member, edits in as_edits(variant.edits).items():
        for position, edit in enumerate(edits):
            own = [
                trial
                for trial in trials
                if trial.variant is variant
                and trial.mutant is not None
                and trial.mutant.member == member
                and position in trial.mutant.edits_at
                and trial.counts
            ]
            killed = sum(trial.caught for trial in own)
            first = " ".join(edit.after.split())
            lines.append(f"{killed:4} of {len(own):2} killed  {member} {position + 1}: {first:.70}")
    return "\n".join(lines)


def difference(mutant: Mutant) -> str:
    before, after = mutant.before.strip().splitlines(), mutant.after.strip().splitlines()
    return "\n".join(difflib.unified_diff(before, after, "as it is", "mutant", lineterm="", n=2))


def record(trial: Trial) -> dict[str, Any]:
    family, member, what = trial.name
    return {
        "family": family,
        "variant": trial.variant.name,
        "member": member,
        "mutant": what,
        "outcome": trial.outcome,
        "killer": trial.killer,
    }


def report(trials: Sequence[Trial], *, complete: bool = True) -> int:
    """Print what the trials show; 1 where a mistake survived or the list of equivalent mutants is wrong."""
    variants = [trial.variant for trial in trials if trial.mutant is None]
    equivalent = read_equivalent(EQUIVALENT, variants)
    failed = False
    for variant in variants:
        found = summarize(variant, trials, equivalent)
        print(f"\n{variant.family} {variant.name}\n{table_of(variant, trials)}")
        for trial in found.survivors:
            assert trial.mutant is not None
            print(f"\nSURVIVED {': '.join(trial.name)}\n{difference(trial.mutant)}")
        print(
            f"\n{variant.family} {variant.name}: {found.edits_caught} of {found.edits} edits are caught when removed "
            f"({found.edits_caught / max(found.edits, 1):.0%}); {found.killed} of {found.mutants} mutants killed, "
            f"{found.equivalent} equivalent, {len(found.survivors)} survived"
        )
        failed |= bool(found.survivors) or found.edits_caught < found.edits
    wrong = problems(trials, equivalent) if complete else []
    print("\n".join(wrong))
    return int(failed or bool(wrong))


def paths_of(tests: Sequence[str]) -> list[str]:
    """The test files in the order in which they are likely to catch something."""
    folder = ROOT / "tests" / "conformance"
    if tests:
        return list(tests)
    named = [folder / name for name in TESTS if name]
    others = sorted(path for path in folder.glob("test_*.py") if path not in named)
    # What every family runs comes first: families of a template have little else.
    others = [*sorted((folder / "families").glob("test_*.py")), *others]
    at = TESTS.index("")
    return [str(path) for path in (*named[:at], *others, *named[at:]) if path.exists()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(FAMILIES), help="every edit of one family, instead of each form once")
    parser.add_argument("--among", nargs="+", choices=list(FAMILIES), metavar="NAME", help="each form of these, once")
    parser.add_argument("--removals", action="store_true", help="drop whole edits only: a few minutes instead of many")
    parser.add_argument("--only", metavar="TEXT", default="", help="only the mutants with this in their names")
    parser.add_argument("--json", type=Path, help="write what happened to each mutant to this file")
    parser.add_argument("-k", metavar="EXPRESSION", default="", help="only the tests that pytest's -k selects")
    parser.add_argument("tests", nargs="*", help="test files instead of the whole conformance suite")
    arguments = parser.parse_args()
    names = [arguments.family] if arguments.family is not None else arguments.among or list(FAMILIES)
    families = [FAMILIES[name] for name in names]
    trials = make_trials(families, each_form_once=arguments.family is None)
    if arguments.removals:
        trials = [trial for trial in trials if trial.mutant is None or trial.mutant.drops_edit]
    if arguments.only:
        trials = [trial for trial in trials if trial.mutant is None or arguments.only in ": ".join(trial.name)]
    run = MutationRun(trials)
    options = [
        "-x",
        "-q",
        "-s",
        "--tb=no",
        "--no-header",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
        "-k",
        arguments.k,
    ]
    status = pytest.main([*options, *paths_of(arguments.tests)], plugins=[run])
    if run.report_to is not None:
        os._exit(status)
    if status:
        return int(status)
    if arguments.json:
        rows = [record(trial) for trial in run.trials if trial.mutant is not None]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return report(run.trials, complete=not (arguments.removals or arguments.only))


if __name__ == "__main__":
    sys.exit(main())
