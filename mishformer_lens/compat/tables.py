"""The compatibility table: what recorded outcomes say of every cell of the grid, as data, Markdown and a page."""

import dataclasses
import functools
import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mishformer_lens.compat.code import code_fingerprint
from mishformer_lens.compat.outcomes import STAND_IN, Counts, Mark, Record, Run, Tier, read_records, worst
from mishformer_lens.errors import OutcomeError
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.releases import has_begun, select_by_release

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
DEVICES = ("cpu", "cuda")

SCHEMA = 1

Results = dict[str, dict[str, dict[str, str]]]
"""By hash: what the features and the hook points of a run did."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One release, family, attention implementation and device.

    Attributes:
        mark: the worst that any of its tests did; None where the release does not offer this at all.
        reason: why it does not, or what was expected to fail.
        stale: whether the code has changed since the run.
        runs: one per dtype.
    """

    release: str
    family: str
    attention: str
    device: str
    mark: Mark | None
    reason: str = ""
    stale: bool = False
    runs: tuple[Run, ...] = ()
    record: Record | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"transformers {self.release}, {self.family}, {self.attention}, {self.device}"

    @property
    def tier(self) -> Tier | None:
        """Which tests ran; None where none did."""
        return tier_of(run.tier for run in self.runs)


def tier_of(tiers: Iterable[Tier | None]) -> Tier | None:
    """The deepest of several tiers; None where nothing ran."""
    found = set(tiers)
    return "deep" if "deep" in found else "family" if "family" in found else None


@dataclasses.dataclass(frozen=True)
class Release:
    """A release in the grid, and what it is tested with."""

    release: str
    torch: str
    transformer_lens: str


@dataclasses.dataclass(frozen=True)
class Table:
    """All cells, the newest release first."""

    releases: tuple[Release, ...]
    cells: tuple[Cell, ...]
    records: tuple[Record, ...]


def build_table(folder: Path) -> Table:
    """The table that ``folder`` (with ``grid.toml`` and ``outcomes/``) gives.

    Raises:
        OutcomeError: there is no grid in ``folder``, a record cannot be read, or is of a release outside the grid.
    """
    grid = folder / "grid.toml"
    if not grid.is_file():
        raise OutcomeError(
            f"there is no {grid}: run this in a checkout of the repository, or name its folder: --folder"
        )
    data = tomllib.loads(grid.read_text(encoding="utf-8"))
    cells = sorted(data["cells"], key=lambda minor: tuple(map(int, minor.split("."))), reverse=True)
    releases = tuple(
        Release(each["transformers"], data["pins"]["torch"], each["transformer-lens"])
        for each in map(data["cells"].__getitem__, cells)
    )
    records = {(record.release, record.device): record for record in read_records(folder / "outcomes")}
    outside = sorted({release for release, _ in records} - {each.release for each in releases})
    if outside:
        raise OutcomeError(
            f"there are outcomes of releases that are not in the grid: {', '.join(outside)}. Remove their files."
        )
    # Thousands of cells ask for some hundreds of fingerprints.
    code = functools.cache(code_fingerprint)
    return Table(
        releases,
        tuple(
            _cell(release.release, family, attention, device, records.get((release.release, device)), code)
            for device in DEVICES
            for release in releases
            for family in FAMILIES
            for attention in ATTENTION
        ),
        tuple(records.values()),
    )


def _cell(
    release: str, family: str, attention: str, device: str, record: Record | None, code: Callable[[str, str], str]
) -> Cell:
    variant = select_by_release(FAMILIES[family], release)
    if variant is None or attention not in variant.attention:
        reason = variant.unsupported.get(attention, "not offered") if variant else _not_begun(family)
        return Cell(release, family, attention, device, None, reason)
    runs = _runs(record, family, attention)
    outcome = record.family(family) if record is not None and record.runs_of(family) else None
    stale = outcome is not None and outcome.is_other_than(code(family, outcome.variant))
    if record is None or not runs:
        stand_in = _runs(record, family, attention + STAND_IN)
        counts = sum((run.counts for run in stand_in), Counts())
        # A stand-in can show that something is broken, and never that the kernel itself was run.
        if counts.failed and record is not None:
            return Cell(release, family, attention, device, "failed", _STOOD_IN, stale, stand_in, record)
        reason = f"{_STOOD_IN}: {counts.passed} tests passed" if counts.passed else ""
        return Cell(release, family, attention, device, "not run", reason)
    reasons = dict.fromkeys(reason for run in runs if run.counts.xfailed for reason in run.reasons)
    return Cell(
        release,
        family,
        attention,
        device,
        worst(run.counts.mark for run in runs),
        "; ".join(reasons),
        stale,
        runs,
        record,
    )


def _not_begun(family: str) -> str:
    return f"this family can be hooked from {FAMILIES[family].first_release} on"


_STOOD_IN = "only the code around the kernel was tested, with a stand-in for it"


def _runs(record: Record | None, family: str, attention: str) -> tuple[Run, ...]:
    runs = record.runs_of(family) if record else ()
    return tuple(run for run in runs if run.attention == attention)


def as_data(table: Table) -> dict[str, Any]:
    """The table for programs. What many runs have in common is given once, under ``results``, by its hash."""
    results: Results = {}
    return {
        "schema": SCHEMA,
        "marks": ["passed", "failed", "xfailed", "not run", None],
        "releases": [dataclasses.asdict(release) for release in table.releases],
        "records": [
            {
                name: str(value) if name == "date" else value
                for name, value in vars(record).items()
                if name not in ("families", "runs", "suite", "schema")
            }
            | {"suite": dataclasses.asdict(record.suite)}
            for record in table.records
        ],
        "cells": [_cell_data(cell, results) for cell in table.cells],
        "results": dict(sorted(results.items())),
    }


def _cell_data(cell: Cell, results: Results) -> dict[str, Any]:
    data: dict[str, Any] = {
        "release": cell.release,
        "family": cell.family,
        "attention": cell.attention,
        "device": cell.device,
        "mark": cell.mark,
    }
    if cell.reason:
        data["reason"] = cell.reason
    if cell.record is not None:
        with_what = cell.record.family(cell.family)
        data |= {
            "stale": cell.stale,
            "tier": cell.tier,
            "variant": with_what.variant,
            "fingerprint": with_what.fingerprint,
        }
        data["runs"] = [
            {
                "dtype": run.dtype,
                "tier": run.tier,
                "counts": dataclasses.asdict(run.counts),
                "result": _result(run, results),
                "reasons": list(run.reasons),
            }
            for run in cell.runs
        ]
    return data


def _result(run: Run, results: Results) -> str:
    features: dict[str, str] = {name: counts.mark for name, counts in sorted(run.features.items())}
    hook_points: dict[str, str] = dict(run.hook_points)
    result = {"features": features, "hook_points": hook_points}
    key = hashlib.sha256(json.dumps(result).encode()).hexdigest()[:8]
    results[key] = result
    return key


def as_json_text(table: Table) -> str:
    """The table as the text of ``compatibility.json``: one line per cell."""
    lines = []
    for name, value in as_data(table).items():
        if name in ("releases", "records", "cells"):
            text = "[" + ",".join(f"\n  {_compact(each)}" for each in value) + "\n ]"
        elif name == "results":
            text = "{" + ",".join(f"\n  {json.dumps(key)}: {_compact(each)}" for key, each in value.items()) + "\n }"
        else:
            text = _compact(value)
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def as_html(table: Table) -> str:
    """The table as a page that needs nothing else."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    # In a script, "</" could end it.
    data = json.dumps(as_data(table), ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return page.replace("/* the table's data */", data)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the cells of one family come to in one release, on one device: the worst of its attention implementations.

    Attributes:
        mark: None where the release does not offer any of them.
    """

    mark: Mark | None
    stale: bool
    tier: Tier | None


def summarize(cells: Iterable[Cell]) -> Summary:
    """What several cells come to."""
    offered = [cell for cell in cells if cell.mark is not None]
    ran = [cell for cell in offered if cell.mark != "not run"]
    marks = [cell.mark for cell in offered if cell.mark is not None]
    return Summary(
        worst(marks) if offered else None, any(cell.stale for cell in ran), tier_of(cell.tier for cell in ran)
    )


SYMBOLS: dict[Mark | None, str] = {"passed": "✅", "failed": "❌", "xfailed": "⚠️", "not run": "⬜", None: "·"}
STALE = "🕓"
FAMILY_TIER = "ᶠ"


def as_markdown(table: Table) -> str:
    """The table for people who read the repository."""
    return "\n".join(_markdown_lines(table)) + "\n"


def _markdown_lines(table: Table) -> Iterator[str]:
    yield "# Compatibility"
    yield ""
    yield "Generated by `mishformer-lens compat table --write` from the recorded outcomes in `outcomes/`; do not edit."
    yield "A mark says what ran: in the first tables the worst of a family's attention implementations, below each by"
    yield "itself. [index.html](index.html) shows the same, and what is behind each mark;"
    yield "[compatibility.json](compatibility.json) is the same for programs."
    yield ""
    yield f"- {SYMBOLS['passed']} every test passed"
    yield f"- {SYMBOLS['failed']} a test failed"
    yield f"- {SYMBOLS['xfailed']} tests failed as expected, for a known cause (below)"
    yield f"- {SYMBOLS['not run']} not run"
    yield f"- {SYMBOLS[None]} transformers does not offer it (below)"
    yield f"- {FAMILY_TIER} beside a mark: the tests that every family runs; without it, all that there are for it"
    yield f"- {STALE} beside a mark: recorded before the code was changed"
    cells: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in table.cells:
        cells.setdefault((cell.device, cell.release, cell.family), []).append(cell)
    for device in DEVICES:
        ran = [record for record in table.records if record.device == device]
        yield ""
        yield f"## On {device.upper()}: {len(ran)} of {len(table.releases)} releases recorded"
        yield ""
        yield f"| transformers | torch | transformer-lens | {' | '.join(FAMILIES)} |"
        yield "| --- | --- | --- |" + " :-: |" * len(FAMILIES)
        for release in table.releases:
            row = [_symbols(summarize(cells[device, release.release, family])) for family in FAMILIES]
            yield f"| {release.release} | {release.torch} | {release.transformer_lens} | {' | '.join(row)} |"
    yield ""
    yield "## By family and attention implementation"
    for family in FAMILIES:
        yield from _family_lines(table, family, cells)


def _symbols(told: Cell | Summary) -> str:
    return SYMBOLS[told.mark] + FAMILY_TIER * (told.tier == "family") + STALE * told.stale


def _family_lines(table: Table, family: str, cells: dict[tuple[str, str, str], list[Cell]]) -> Iterator[str]:
    """A table of a family's implementations, one row for neighbours that are alike, and the reasons of its marks."""
    begun = [release.release for release in table.releases if has_begun(FAMILIES[family], release.release)]
    yield from ("", f"### {family}", "")
    if len(begun) < len(table.releases):
        yield from (f"From {FAMILIES[family].first_release} on.", "")
    columns = [(device, number) for device in DEVICES for number in range(len(ATTENTION))]
    yield "| transformers | " + " | ".join(f"{device} {ATTENTION[number]}" for device, number in columns) + " |"
    yield "| --- |" + " :-: |" * len(columns)

    def row(release: str) -> tuple[str, ...]:
        return tuple(_symbols(cells[device, release, family][number]) for device, number in columns)

    for marks, group in itertools.groupby(begun, row):
        yield f"| {_range(list(group)[::-1])} | {' | '.join(marks)} |"
    own = [cell for release in reversed(begun) for device in DEVICES for cell in cells[device, release, family]]
    reasons = [_reasons("fails as expected", begun, [cell for cell in own if cell.mark == "xfailed"], with_device=True)]
    absent = [cell for cell in own if cell.mark is None and cell.device == DEVICES[0]]
    reasons.append(_reasons("is not offered", begun, absent, with_device=False))
    lines = [line for each in reasons for line in each]
    if lines:
        yield from ("", *lines)


def _range(releases: Sequence[str]) -> str:
    return releases[0] if len(releases) == 1 else f"{releases[0]} to {releases[-1]}"


def _reasons(what: str, order: Sequence[str], cells: Iterable[Cell], with_device: bool) -> Iterator[str]:
    """A list of reasons, each with the releases that it holds for; ``order`` has all there are, newest first."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        where = f"{cell.attention} on {cell.device}" if with_device else cell.attention
        grouped.setdefault((where, cell.reason), []).append(cell.release)
    for (where, reason), releases in sorted(grouped.items()):
        runs = itertools.groupby(reversed(order), set(releases).__contains__)
        shown = ", ".join(_range(list(run)) for holds, run in runs if holds)
        yield f"- {where} {what} in {shown}: {reason}"


FILES = {"compatibility.json": as_json_text, "README.md": as_markdown, "index.html": as_html}
"""The committed files, and what makes them."""


def stale_files(folder: Path, table: Table) -> dict[str, list[str]]:
    """The committed files that are not what the outcomes say, each with the names of the cells that differ if known."""
    found = {}
    for name, render in FILES.items():
        path = folder / name
        committed = path.read_text(encoding="utf-8") if path.is_file() else ""
        if committed != render(table):
            found[name] = _differing_cells(committed, table) if name == "compatibility.json" else []
    return found


def _differing_cells(committed: str, table: Table) -> list[str]:
    try:
        cells = {tuple(map(cell.get, _KEYS)): cell for cell in json.loads(committed)["cells"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    results: Results = {}
    fresh = [(cell.name, _cell_data(cell, results)) for cell in table.cells]
    return [name for name, data in fresh if cells.get(tuple(map(data.get, _KEYS))) != data]


_KEYS = ("release", "family", "attention", "device")
