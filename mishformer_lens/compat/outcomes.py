"""Records of what ran: one file per release and device, written by the suite and never by hand."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from mishformer_lens.compat.code import code_fingerprint
from mishformer_lens.errors import OutcomeError

SCHEMA = 1

Mark = Literal["passed", "failed", "xfailed", "not run"]
"""What a test did. ``xfailed``: it failed as a committed expectation says, with its cause."""

Tier = Literal["deep", "family"]
"""Which tests ran: ``family``, those that every family runs in every cell; ``deep``, all that there are for it."""

STAND_IN = " (stand-in)"
"""Follows the name of an attention implementation in runs whose tests put something else in the kernel's place."""

WORST_FIRST: tuple[Mark, ...] = ("failed", "xfailed", "passed", "not run")


class _Exact:
    """Tells the validator that a record has no other fields than these."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclasses.dataclass(frozen=True)
class Counts(_Exact):
    """How many tests did what."""

    passed: int = 0
    failed: int = 0
    xfailed: int = 0
    not_run: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(one + another for one, another in pairs))

    @property
    def mark(self) -> Mark:
        """The worst that happened."""
        numbers: dict[Mark, int] = {
            "failed": self.failed,
            "xfailed": self.xfailed,
            "passed": self.passed,
            "not run": self.not_run,
        }
        return next((mark for mark in WORST_FIRST if numbers[mark]), "not run")


@dataclasses.dataclass(frozen=True)
class FamilyOutcome(_Exact):
    """With what a family was hooked.

    Attributes:
        fingerprint: that of the release's source.
        code: that of this library's own code for it, see :func:`mishformer_lens.compat.code.code_fingerprint`.
    """

    family: str
    variant: str
    fingerprint: str
    code: str

    @property
    def is_stale(self) -> bool:
        """Whether the code has changed since, or the variant is gone."""
        return self.is_other_than(code_fingerprint(self.family, self.variant))

    def is_other_than(self, code: str) -> bool:
        """Whether the run was of other code than that of this fingerprint."""
        return self.code != code


@dataclasses.dataclass(frozen=True)
class Run(_Exact):
    """The tests of one family with one attention implementation in one dtype.

    Attributes:
        features: feature to its counts.
        hook_points: hook point, without the number of its block, to what its tests did.
        reasons: why tests were not run or were expected to fail.
        tier: which tests ran. Records of before there were two are of the deep one.
    """

    family: str
    attention: str
    dtype: str
    counts: Counts
    features: dict[str, Counts]
    hook_points: dict[str, Mark]
    reasons: tuple[str, ...] = ()
    tier: Tier = "deep"


@dataclasses.dataclass(frozen=True)
class Record(_Exact):
    """One run of the suite with one release on one device.

    Attributes:
        device: ``cpu`` or ``cuda``.
        device_name: what the device calls itself.
        packages: the versions that it ran with.
        lock: the lock file and its hash.
        date: the day of the run, in UTC.
        commit: the commit that was checked out; ``modified`` tells whether files had been changed since.
        command: what repeats the run.
        suite: counts of all tests, those of no family included.
    """

    release: str
    device: str
    device_name: str
    python: str
    packages: dict[str, str]
    lock: str
    lock_sha256: str
    date: datetime.date
    commit: str
    modified: bool
    command: str
    suite: Counts
    families: tuple[FamilyOutcome, ...]
    runs: tuple[Run, ...]
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """How messages call the record's cell."""
        return f"transformers {self.release} on {self.device}"

    def family(self, name: str) -> FamilyOutcome:
        """With what the family ``name`` was hooked."""
        return next(family for family in self.families if family.family == name)

    def runs_of(self, family: str) -> tuple[Run, ...]:
        """The runs of one family."""
        return tuple(run for run in self.runs if run.family == family)


def file_name(release: str, device: str) -> str:
    """The name of the file that a record is kept in."""
    return f"{release}-{device}.json"


def write_record(record: Record, folder: Path) -> Path:
    """Write a record with its checksum, whole or not at all; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(record.release, record.device)
    value = json.loads(json.dumps(dataclasses.asdict(record, dict_factory=_without_zeros), default=str))
    scratch = path.with_suffix(".part")
    scratch.write_text(_as_text(value | {"checksum": _checksum(value)}), encoding="utf-8")
    scratch.replace(path)
    return path


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        OutcomeError: the file is damaged, of another schema, was changed by hand, or lies under another cell's name.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutcomeError(f"the outcome {path.name} cannot be read ({error}). {_AGAIN}") from error
    if not isinstance(value, dict) or "checksum" not in value:
        raise OutcomeError(f"{path.name} is no recorded outcome: it has no checksum. {_AGAIN}")
    if value.get("schema") != SCHEMA:
        raise OutcomeError(f"{path.name} has schema {value.get('schema')!r}, and this code reads {SCHEMA}. {_AGAIN}")
    checksum = value.pop("checksum")
    if checksum != _checksum(value):
        raise OutcomeError(
            f"the outcome of transformers {value.get('release')} on {value.get('device')} ({path.name}) is not what "
            f"the suite recorded: it was changed by hand, or is damaged. {_AGAIN}"
        )
    record = _validated(value, path)
    if path.name != file_name(record.release, record.device):
        raise OutcomeError(f"{path.name} is the outcome of {record.name}: it was renamed. {_AGAIN}")
    return record


def read_records(folder: Path) -> list[Record]:
    """Every record in a folder, in the order of their names.

    Raises:
        OutcomeError: see :func:`read_record`.
    """
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def worst(marks: Iterable[Mark]) -> Mark:
    """The worst of several marks; ``not run`` where there are none."""
    found = set(marks)
    return next((mark for mark in WORST_FIRST if mark in found), "not run")


_AGAIN = "Bring the committed file back, or record it anew with the nox session of its release."


def _checksum(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _as_text(value: dict[str, Any]) -> str:
    """JSON with a line for every field, and for every field of a run."""
    lines = []
    for name, field in value.items():
        if name == "runs":
            runs = (",\n   ".join(f"{json.dumps(key)}: {_line(part)}" for key, part in run.items()) for run in field)
            field_text = "[\n  {" + "},\n  {".join(runs) + "}\n ]"
        else:
            field_text = _line(field)
        lines.append(f" {json.dumps(name)}: {field_text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _without_zeros(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = {field.name for field in dataclasses.fields(Counts)}
    return {name: value for name, value in fields if name not in counts or value}


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _validated(value: dict[str, Any], path: Path) -> Record:
    # A quarter of a second of imports, for those who read outcomes only.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Record).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise OutcomeError(f"{path.name} is no recorded outcome: {place}: {first['msg']}. {_AGAIN}") from error
