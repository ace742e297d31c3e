"""Proposes new cells and refreshed locks from what the package index has; shows a diff, and writes it with `--write`.

A release younger than two days is left alone: most that are withdrawn are withdrawn by then. The index is the one that
uv's variables or pip's settings name, else the public one.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tomlkit
from packaging.version import Version

from tools.grid import GRID_FILE, ROOT, Cell, Grid, minor_key, parse_grid
from tools.locks import LockError, all_locks, cell_lock, pinned, resolve, types_lock
from tools.package_index import package_index

MINIMUM_AGE = timedelta(days=2)


@dataclass(frozen=True)
class Release:
    """One release on the index."""

    version: Version
    uploaded: datetime | None
    withdrawn: bool

    @property
    def minor(self) -> str:
        """ "4.45" for 4.45.2."""
        return f"{self.version.major}.{self.version.minor}"


def releases_on_index(project: str) -> list[Release]:
    """Every release of `project` that has a wheel."""
    with package_index() as index:
        packages = index.get_project_page(project).packages
    return [
        Release(Version(package.version), package.upload_time, package.is_yanked)
        for package in packages
        if package.version is not None and package.package_type == "wheel"
    ]


def newest_of_each_minor(releases: Iterable[Release], *, before: datetime) -> dict[str, Version]:
    """The last final release of every minor that was uploaded by `before` and not withdrawn."""
    newest: dict[str, Version] = {}
    for release in releases:
        old_enough = release.uploaded is None or release.uploaded <= before
        if old_enough and not release.withdrawn and not release.version.is_prerelease:
            newest[release.minor] = max(release.version, newest.get(release.minor, release.version))
    return newest


def proposed_cells(grid: Grid, newest: dict[str, Version]) -> list[tuple[str, Version]]:
    """The minors of `newest` that the grid lacks or has an older release of, oldest first.

    Minors older than the grid's first are left out: no variant is written for them.
    """
    known = {cell.minor: Version(cell.transformers) for cell in grid.cells}
    first = minor_key(grid.cells[0].minor)
    return sorted(
        (
            (minor, version)
            for minor, version in newest.items()
            if minor_key(minor) >= first and (minor not in known or version > known[minor])
        ),
        key=lambda item: item[1],
    )


def resolved_transformer_lens(grid: Grid, minor: str, version: Version, moment: str) -> str:
    """The newest transformer-lens that goes with `version`, by resolution."""
    draft = Cell(minor, str(version), transformer_lens="", pythons=grid.pythons)
    whole = cell_lock(grid, draft)
    lock = replace(whole, constraints=tuple(line for line in whole.constraints if "lens" not in line))
    text = resolve(lock, grid, upgrade=True, exclude_newer=moment)
    return pinned(text)["transformer-lens"]


def updated_grid_text(text: str, version: Version, minor: str, transformer_lens: str | None) -> str:
    """`text` of grid.toml with one cell added or moved to `version`; comments and order of the rest stay."""
    document = tomlkit.parse(text)
    cells = document["cells"]
    if transformer_lens is None:
        cells[minor]["transformers"] = str(version)
        return tomlkit.dumps(document)
    # Appended as text: at the end, where a new minor belongs, and with the blank line that the others have.
    return (
        f'{text.rstrip()}\n\n[cells."{minor}"]\ntransformers = "{version}"\ntransformer-lens = "{transformer_lens}"\n'
    )


def proposal(text: str, *, now: datetime, only_releases: bool = False) -> dict[Path, str]:
    """The files that would change, with their new text. Raises LockError where a cell has no resolution.

    `only_releases`: leaves the locks of cells whose release stays as they are.
    """
    before = now - MINIMUM_AGE
    moment = before.isoformat()
    grid = parse_grid(text)
    newest = newest_of_each_minor(releases_on_index("transformers"), before=before)
    moved = dict(proposed_cells(grid, newest))
    for minor, version in moved.items():
        is_new = all(cell.minor != minor for cell in grid.cells)
        lens = resolved_transformer_lens(grid, minor, version, moment) if is_new else None
        text = updated_grid_text(text, version, minor, lens)
    grid = parse_grid(text)
    files = {GRID_FILE: text}
    locks = all_locks(grid)
    if only_releases:
        locks = tuple(cell_lock(grid, grid.cell(minor)) for minor in moved)
        locks += (types_lock(grid),) if grid.newest.minor in moved else ()
    for lock in locks:
        files[lock.path] = resolve(lock, grid, upgrade=True, exclude_newer=moment)
    return {path: new for path, new in files.items() if not path.exists() or path.read_text(encoding="utf-8") != new}


def as_diff(files: dict[Path, str]) -> str:
    """A unified diff from what is on disk to `files`."""
    parts: list[str] = []
    for path, new in files.items():
        name = path.relative_to(ROOT).as_posix()
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        parts += difflib.unified_diff(
            old.splitlines(keepends=True),
            new.splitlines(keepends=True),
            fromfile=f"a/{name}" if old else "/dev/null",
            tofile=f"b/{name}",
        )
    return "".join(parts)


def main() -> None:
    """Prints the diff; writes it when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write what the diff shows")
    parser.add_argument("--only-releases", action="store_true", help="new releases, without refreshing other locks")
    arguments = parser.parse_args()
    try:
        text = GRID_FILE.read_text(encoding="utf-8")
        files = proposal(text, now=datetime.now(UTC), only_releases=arguments.only_releases)
    except LockError as error:
        sys.exit(f"No set of versions fits: {error}\nNothing was written. Pin what conflicts in compat/grid.toml.")
    print(as_diff(files), end="")
    if arguments.write:
        for path, new in files.items():
            path.write_text(new, encoding="utf-8")
    verb = "wrote" if arguments.write else "would write"
    print(f"{verb} {len(files)} files" if files else "nothing to update", file=sys.stderr)


if __name__ == "__main__":
    main()
