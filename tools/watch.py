"""What the nightly look at new releases found, and the text that it opens a pull request or an issue with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.grid import ROOT, Cell, Grid

PULL_REQUEST = """\
{headline}

{table}

**Green** means: every anchor matches the release's source, its fingerprints are in the table of this change, and the \
suite passes with its lock. Read the difference of the touched members (`mishformer-lens compat diff`), then merge: \
the release is supported from the next version of this package on.

**Red** means: the anchors match, yet the suite fails, so the release changed what the hooks promise. Do not merge. \
Reproduce it with `nox -s "test-3.11(transformers='{minor}')"` on this branch; mend the variant, or write a new one as \
CONTRIBUTING.md describes.

The checks below start when this pull request is closed and opened again: a workflow's own pull request starts none. \
The state above is that of the night's run.
"""

ISSUE = """\
{headline}

{table}

Anchors are missing: no variant can be applied, and the resolver refuses the release by itself. Nobody who uses it \
gets wrong numbers; they get an error that names the anchors. What to do: run \
`mishformer-lens compat draft <family> {release}`, finish the file as CONTRIBUTING.md describes, then \
`nox -s update_grid -- --only-releases --write`.

What is missing:

{failures}
"""


@dataclass(frozen=True)
class ScanRow:
    """What `mishformer-lens compat scan` says of one family."""

    family: str
    variant: str
    status: str
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One new release: what its source says, and whether its cell passed (None: not run)."""

    cell: Cell
    rows: tuple[ScanRow, ...]
    suite_passed: bool | None

    @property
    def anchors_match(self) -> bool:
        """Whether some variant applies, for every family."""
        return all(row.status != "fails" for row in self.rows)

    @property
    def state(self) -> str:
        """green, red, or what kept the cell from running."""
        if self.suite_passed is None:
            return "not run: anchors are missing"
        return "green" if self.suite_passed else "red"


@dataclass(frozen=True)
class Report:
    """What to open: `kind` is "nothing", "pull-request" or "issue"."""

    kind: str
    title: str = ""
    body: str = ""


def moved_cells(before: Grid, after: Grid) -> list[Cell]:
    """The cells of `after` whose release `before` does not have."""
    known = {(cell.minor, cell.transformers) for cell in before.cells}
    return [cell for cell in after.cells if (cell.minor, cell.transformers) not in known]


def read_scan(text: str) -> tuple[ScanRow, ...]:
    """The rows in the JSON that `mishformer-lens compat scan --json` prints."""
    return tuple(
        ScanRow(
            row["family"],
            row["variant"] or "none",
            row["status"],
            tuple(f"{failure['member']}: {failure['message']}" for failure in row["failures"]),
        )
        for row in json.loads(text)
    )


def make_report(findings: Sequence[Finding]) -> Report:
    """An issue where anchors are missing in any release, else a pull request for all of them."""
    if not findings:
        return Report("nothing")
    broken = [finding for finding in findings if not finding.anchors_match]
    subject = broken or findings
    releases = ", ".join(finding.cell.transformers for finding in subject)
    fields = {
        "headline": f"New on the package index: transformers {releases}.",
        "table": _table(findings),
        "minor": subject[-1].cell.minor,
        "release": subject[-1].cell.transformers,
        "failures": "\n".join(f"- {text}" for f in broken for row in f.rows for text in row.failures),
    }
    if broken:
        return Report("issue", f"transformers {releases}: anchors are missing", ISSUE.format(**fields))
    return Report("pull-request", f"Add transformers {releases} to the grid", PULL_REQUEST.format(**fields))


def write_report(findings: Sequence[Finding], folder: Path) -> None:
    """Writes kind.txt, and title.txt, body.md and changes.patch where there is something to report."""
    report = make_report(findings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kind.txt").write_text(f"kind={report.kind}\n", encoding="utf-8")
    if report.kind == "nothing":
        return
    (folder / "title.txt").write_text(report.title + "\n", encoding="utf-8")
    (folder / "body.md").write_text(report.body, encoding="utf-8")
    # New locks are unknown to git until they are added; --intent-to-add shows them without committing to anything.
    paths = ["compat", "mishformer_lens/patchers/fingerprints.json"]
    subprocess.run(["git", "add", "--intent-to-add", *paths], cwd=ROOT, check=True)
    diff = subprocess.run(["git", "diff", "--", *paths], cwd=ROOT, check=True, capture_output=True)
    (folder / "changes.patch").write_bytes(diff.stdout)


def _table(findings: Sequence[Finding]) -> str:
    lines = ["| release | family | variant | source | cell |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {finding.cell.transformers} | {row.family} | {row.variant} | {row.status} | {finding.state} |"
        for finding in findings
        for row in finding.rows
    ]
    return "\n".join(lines)
