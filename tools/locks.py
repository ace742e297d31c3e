"""Makes the files in `compat/locks/`: complete, pinned environments that install everywhere.

`python -m tools.locks` makes the locks that are missing; `python -m tools.locks --all` resolves all of them anew,
keeping every pin that still fits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.grid import LOCKS, ROOT, Cell, Grid, read_grid


class LockError(Exception):
    """No set of versions fits; the message is the resolver's."""


@dataclass(frozen=True)
class Lock:
    """One lock: the file, what goes into it, and how it is resolved."""

    path: Path
    title: str
    inputs: tuple[str, ...]
    """Arguments for `uv pip compile` that say what to resolve: `pyproject.toml`, extras and dependency groups."""
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ("--universal",)


PACKAGE = ("pyproject.toml", "--extra=transformer-lens", "--extra=demo", "--group=test")


def cell_constraints(grid: Grid, cell: Cell) -> tuple[str, ...]:
    """What `cell` holds fixed; everything else is the newest that goes with it."""
    lens = f"transformer-lens=={cell.transformer_lens}"
    return f"torch=={grid.torch}", f"transformers=={cell.transformers}", lens


def cell_lock(grid: Grid, cell: Cell) -> Lock:
    """The lock of one cell: the package, its demo and its suite, around one release of transformers."""
    return Lock(cell.lock, f"transformers {cell.transformers}", PACKAGE, cell_constraints(grid, cell))


def types_lock(grid: Grid) -> Lock:
    """The lock of the type checker, which reads the annotations of all that the newest cell has."""
    inputs = (*PACKAGE, "--group=types")
    return Lock(LOCKS / "types.txt", "type checker", inputs, cell_constraints(grid, grid.newest))


def other_locks(grid: Grid) -> tuple[Lock, ...]:
    """The locks beside the cells': the floors of the package, and the tools."""
    return (
        Lock(
            path=LOCKS / "minimums.txt",
            title="the declared floor of every direct dependency",
            inputs=PACKAGE,
            # Builds of torch for the CPU are not kept on every index, so the floor of torch is not resolved.
            # Left alone, the resolver goes back to a datasets that today's pyarrow broke.
            constraints=(f"torch=={grid.torch}", "datasets>=4.0"),
            options=("--resolution=lowest-direct",),
        ),
        Lock(
            path=LOCKS / "minimal.txt",
            title="the package without extras",
            inputs=("pyproject.toml", "--group=minimal"),
            constraints=(f"torch=={grid.torch}", f"transformers=={grid.newest.transformers}"),
        ),
        Lock(LOCKS / "unit.txt", "the tests that need no torch", ("--group=unit",)),
        Lock(LOCKS / "tools.txt", "linters, and what refreshes the grid", ("--group=lint", "--group=grid")),
        Lock(LOCKS / "upstream.txt", "what HuggingFace's own tests need beside a cell", ("--group=upstream",)),
        types_lock(grid),
    )


def all_locks(grid: Grid) -> tuple[Lock, ...]:
    """Every lock that `compat/locks/` should hold."""
    return (*(cell_lock(grid, cell) for cell in grid.cells), *other_locks(grid))


def resolve(lock: Lock, grid: Grid, *, upgrade: bool = False, exclude_newer: str | None = None) -> str:
    """The text of `lock`, resolved now. Keeps the pins it has unless `upgrade`; changes no file.

    `exclude_newer`: leaves out what was uploaded after this moment (RFC 3339).
    Raises LockError when nothing fits.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints, config, output = (Path(folder, name) for name in ("constraints.txt", "uv.toml", "lock.txt"))
        constraints.write_text("\n".join(lock.constraints), encoding="utf-8")
        # JSON strings and lists are TOML too.
        config.write_text(
            f'[[dependency-metadata]]\nname = "torch"\nversion = "{grid.torch}"\n'
            f"requires-dist = {json.dumps(grid.torch_requires)}\n",
            encoding="utf-8",
        )
        if lock.path.exists() and not upgrade:
            shutil.copy(lock.path, output)
        command = ["uv", "pip", "compile", *lock.inputs, *lock.options, f"--constraints={constraints}"]
        command += [f"--config-file={config}", f"--output-file={output}", f"--python-version={grid.pythons[0]}"]
        command += ["--no-annotate", "--no-header", "--quiet"]
        command += [f"--exclude-newer={exclude_newer}"] if exclude_newer else []
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise LockError(f"{lock.path.name}: {finished.stderr.strip()}")
        heading = f"# {lock.title}; complete, made by `nox -s update_grid`"
        return f"{heading}\n{output.read_text(encoding='utf-8')}"


def pinned(text: str) -> dict[str, str]:
    """Package to version in the text of a lock; the last one where the platform or the Python decides."""
    pins = (line.split(" ;")[0].partition("==")[::2] for line in text.splitlines() if not line.startswith("#"))
    return dict(pins)


def main() -> None:
    """Makes the missing locks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="resolve all locks again, keeping the pins that still fit")
    arguments = parser.parse_args()
    grid = read_grid()
    for lock in all_locks(grid):
        if arguments.all or not lock.path.exists():
            lock.path.write_text(resolve(lock, grid), encoding="utf-8")
            print(lock.path.relative_to(ROOT))


if __name__ == "__main__":
    main()
