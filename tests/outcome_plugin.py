"""Expected failures, with their causes, and the record of a run that ``--outcomes FOLDER`` writes.

A test belongs to a family, an attention implementation and a dtype by its parameter ``case`` (or ``kind`` alone), to a
hook point by its parameter ``hook_point``, and to a feature by its parameter ``scenario`` or else by its own name.
"""

import dataclasses
import datetime
import fnmatch
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

if TYPE_CHECKING:
    from mishformer_lens.compat.outcomes import Counts, FamilyOutcome, Mark, Record, Run

ROOT = Path(__file__).parent.parent
EXPECTED_FAILURES = ROOT / "compat" / "expected_failures.toml"
PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "tokenizers", "safetensors", "accelerate")
DEVICE_VARIABLE = "MISHFORMER_LENS_DEVICE"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--expected-failures", type=Path, metavar="FILE", default=EXPECTED_FAILURES)
    parser.addoption(
        "--family", action="append", default=[], metavar="NAME", help="run what is of this family only; may be repeated"
    )
    parser.addoption("--outcomes", type=Path, metavar="FOLDER", help="write a record of the run to this folder")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("family") and config.getoption("outcomes") is not None:
        raise pytest.UsageError("--outcomes records what a cell's whole suite did, and --family runs a part of it")
    # The processes that pytest-xdist hands tests to have a workerinput; they report to the one that writes the record.
    if config.getoption("outcomes") is not None and "workerinput" not in vars(config):
        config.pluginmanager.register(Recorder(config.getoption("outcomes")), "outcome recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    families = config.getoption("family")
    if families:
        chosen = select(items, families)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    expected = [entry for entry in read_expected_failures(config.getoption("expected_failures")) if entry.applies()]
    for item in items:
        for entry in expected:
            if fnmatch.fnmatchcase(item.nodeid, entry.test):
                item.add_marker(pytest.mark.xfail(reason=entry.cause, strict=True))
        if config.getoption("outcomes") is not None:
            # What travels with the report from process to process.
            item.user_properties.append(("where", dataclasses.astuple(where(item))))


@dataclasses.dataclass(frozen=True)
class ExpectedFailure:
    """Tests that fail on certain releases for a known cause.

    Attributes:
        test: the tests' ids, as a pattern; ``[[]`` stands for ``[``.
        releases: the releases of transformers, as a specifier.
        cause: why they fail.
        device: ``cpu``, ``cuda``, or empty for both.
    """

    test: str
    releases: str
    cause: str
    device: str = ""

    def applies(self) -> bool:
        """Whether the tests are expected to fail here."""
        try:
            release = Version(importlib.metadata.version("transformers"))
        except importlib.metadata.PackageNotFoundError:
            return False
        return release in SpecifierSet(self.releases, prereleases=True) and self.device in ("", device())


def read_expected_failures(path: Path) -> list[ExpectedFailure]:
    """The committed expectations. An entry without a cause, or with a field of another name, is an error."""
    fields = {field.name for field in dataclasses.fields(ExpectedFailure)}
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("expected", []):
        if not fields >= set(entry) or not all(entry.get(name, "").strip() for name in ("test", "releases", "cause")):
            raise pytest.UsageError(f"{path.name}: an expected failure has a test, releases and a cause: {entry}")
        found.append(ExpectedFailure(**entry))
    return found


def device() -> str:
    """The kind of device that the suite runs on."""
    return os.environ.get(DEVICE_VARIABLE, "cpu").partition(":")[0]


@dataclasses.dataclass(frozen=True)
class Where:
    """What one test speaks for. All empty: for no family."""

    family: str = ""
    attention: str = ""
    dtype: str = ""
    feature: str = ""
    hook_point: str = ""
    tier: str = ""


def select(items: Iterable[pytest.Item], families: Iterable[str]) -> list[pytest.Item]:
    """The tests that are of one of these families, by their parameters.

    Raises:
        pytest.UsageError: there is no such family.
    """
    from mishformer_lens.patchers import FAMILIES
    from mishformer_lens.suggestions import did_you_mean

    for name in families:
        if name not in FAMILIES:
            raise pytest.UsageError(f"--family: there is no family {name!r}. {did_you_mean(name, FAMILIES)}")
    wanted = set(families)
    return [item for item in items if wanted & set(_families_of(item))]


def _families_of(item: pytest.Item) -> Iterator[str]:
    parameters: dict[str, Any] = vars(item)["callspec"].params if "callspec" in vars(item) else {}
    for name, value in parameters.items():
        if name in ("case", "float32_case") and "dtype" in dir(value):
            yield value.family
        elif name == "kind" and isinstance(value, str):
            yield family_of(value)
        elif name == "family":
            yield value if isinstance(value, str) else str(value.name)


def family_of(kind: str) -> str:
    """The family that a kind of model is of, and named after. Told without torch, which not every session has."""
    from mishformer_lens.patchers import FAMILIES

    return max((name for name in FAMILIES if kind.startswith(name)), key=len)


def where(item: pytest.Item) -> Where:
    """What a test speaks for."""
    parameters: dict[str, Any] = item.callspec.params if isinstance(item, pytest.Function) and _has_case(item) else {}
    folders = Path(item.nodeid.partition("::")[0]).parts
    if not parameters or "conformance" not in folders:
        return Where()
    tier = "family" if "families" in folders else "deep"
    case = parameters.get("case", parameters.get("float32_case"))
    if not isinstance(parameters.get("kind", ""), str) or (case is not None and "dtype" not in dir(case)):
        # pytest's stand-in for a parameter where there is none: such a test is skipped.
        return Where()
    scenario = _scenario(item, case) if "scenario" in parameters else ""
    name = item.name.partition("[")[0].removeprefix("test_").replace("_", " ")
    feature = f"{name}: {scenario}" if scenario else name
    if case is None:
        return Where(family_of(str(parameters["kind"])), "eager", "float32", feature, tier=tier)
    dtype = str(case.dtype).removeprefix("torch.")
    attention = case.attention
    if attention == "flash_attention_2" and item.get_closest_marker("gpu") is None:
        # The kernel needs a GPU; elsewhere tests put something else in its place.
        from mishformer_lens.compat.outcomes import STAND_IN

        attention += STAND_IN
    return Where(case.family, attention, dtype, feature, str(parameters.get("hook_point", "")), tier)


def _has_case(item: pytest.Function) -> bool:
    return "callspec" in vars(item) and bool({"case", "float32_case", "kind"} & set(item.callspec.params))


def _scenario(item: pytest.Item, case: Any) -> str:
    """The scenario's name: what stands before the case in the test's id."""
    return item.name.partition("[")[2].removesuffix("]").removesuffix(f"-{case}")


class Recorder:
    """Notes what every test did, and writes the record when all have run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, Where] = {}
        self._marks: dict[str, tuple[Mark, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "where":
                self._places[report.nodeid] = Where(*map(str, value))  # type: ignore[call-overload]
        if report.failed:
            self._marks[report.nodeid] = ("failed", "")
        elif report.skipped:
            reason = str(getattr(report, "wasxfail", "") or _skip_reason(report))
            self._marks[report.nodeid] = ("xfailed" if hasattr(report, "wasxfail") else "not run", reason)
        elif report.when == "call":
            self._marks.setdefault(report.nodeid, ("passed", ""))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        assert isinstance(reporter, pytest.TerminalReporter)
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            reporter.write_line("no outcome was recorded: the run did not come to its end")
            return
        from mishformer_lens.compat.outcomes import write_record

        path = write_record(self._record(), self._folder)
        reporter.write_line("")
        reporter.write_line(f"outcome: {path}")

    def _record(self) -> "Record":
        from mishformer_lens.compat.outcomes import Record

        release = importlib.metadata.version("transformers")
        minor = ".".join(release.split(".")[:2])
        python = ".".join(platform.python_version_tuple()[:2])
        session = f"test-{python}" if device() == "cpu" else f"test_gpu-{python}"
        lock = ROOT / "compat" / "locks" / f"transformers-{minor}.txt"
        commit, modified = _commit()
        runs = tuple(self._runs())
        return Record(
            release=release,
            device=device(),
            device_name=_device_name(),
            python=platform.python_version(),
            packages={name: version for name in PACKAGES if (version := _version(name))},
            lock=lock.relative_to(ROOT).as_posix(),
            lock_sha256=hashlib.sha256(lock.read_bytes()).hexdigest(),
            date=datetime.datetime.now(datetime.UTC).date(),
            commit=commit,
            modified=modified,
            command=f"nox -s \"{session}(transformers='{minor}')\"",
            suite=_count(mark for mark, _ in self._marks.values()),
            families=tuple(_family(name, release) for name in dict.fromkeys(run.family for run in runs)),
            runs=runs,
        )

    def _runs(self) -> "Iterable[Run]":
        from mishformer_lens.compat.outcomes import Run, worst

        tests: dict[tuple[str, str, str], list[tuple[Where, Mark, str]]] = defaultdict(list)
        for test, place in sorted(self._places.items()):
            if place.family:
                tests[place.family, place.attention, place.dtype].append((place, *self._marks[test]))
        for (family, attention, dtype), found in sorted(tests.items()):
            features: dict[str, list[Mark]] = defaultdict(list)
            points: dict[str, list[Mark]] = defaultdict(list)
            for place, mark, _ in found:
                features[place.feature].append(mark)
                if place.hook_point:
                    points[place.hook_point].append(mark)
            yield Run(
                family,
                attention,
                dtype,
                _count(mark for _, mark, _ in found),
                {name: _count(marks) for name, marks in features.items()},
                {name: worst(marks) for name, marks in points.items()},
                tuple(dict.fromkeys(reason for _, _, reason in found if reason)),
                "deep" if any(place.tier == "deep" for place, _, _ in found) else "family",
            )


def _count(marks: "Iterable[Mark]") -> "Counts":
    from mishformer_lens.compat.outcomes import Counts

    found = list(marks)
    return Counts(*(found.count(mark) for mark in ("passed", "failed", "xfailed", "not run")))


def _family(name: str, release: str) -> "FamilyOutcome":
    from mishformer_lens.compat.code import code_fingerprint
    from mishformer_lens.compat.outcomes import FamilyOutcome
    from mishformer_lens.patchers import FAMILIES
    from mishformer_lens.patchers.installed import installed_source
    from mishformer_lens.patchers.resolver import judge

    verdict = judge(FAMILIES[name], installed_source(FAMILIES[name]).text, release)
    return FamilyOutcome(name, verdict.variant.name, verdict.fingerprint, code_fingerprint(name, verdict.variant.name))


def _skip_reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _device_name() -> str:
    if device() == "cpu":
        return f"{platform.machine()} {platform.system()}"
    import torch

    return torch.cuda.get_device_name()


def _commit() -> tuple[str, bool]:
    """The commit that is checked out, and whether code was changed since. Records and tables are not code."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown", True
    changes = ["git", "status", "--porcelain", "--", "mishformer_lens", "tests", "compat/locks", "pyproject.toml"]
    status = subprocess.run(changes, cwd=ROOT, capture_output=True, text=True, check=True)
    return head.stdout.strip(), bool(status.stdout.strip())
