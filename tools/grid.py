"""Reads `compat/grid.toml`: which releases of transformers are tested, and with what."""

from __future__ import annotations

import itertools
import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GRID_FILE = ROOT / "compat" / "grid.toml"
LOCKS = ROOT / "compat" / "locks"
PATCHERS = ROOT / "mishformer_lens" / "patchers"
FINGERPRINTS_FILE = PATCHERS / "fingerprints.json"


@dataclass(frozen=True)
class Cell:
    """One minor of transformers and what it runs with."""

    minor: str
    transformers: str
    transformer_lens: str
    pythons: tuple[str, ...]

    @property
    def lock(self) -> Path:
        """The file with the complete, pinned environment of this cell."""
        return LOCKS / f"transformers-{self.minor}.txt"


@dataclass(frozen=True)
class Grid:
    """The pins that all cells share, and the cells, oldest first."""

    pythons: tuple[str, ...]
    torch: str
    torch_requires: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def newest(self) -> Cell:
        """The cell of the newest release."""
        return self.cells[-1]

    def cell(self, minor: str) -> Cell:
        """The cell of `minor`, such as "4.45". Raises KeyError when the grid has none."""
        for cell in self.cells:
            if cell.minor == minor:
                return cell
        known = ", ".join(cell.minor for cell in self.cells)
        raise KeyError(f"no cell {minor!r} in {GRID_FILE.name}; it has {known}")

    def edges(self, fingerprints: Path = FINGERPRINTS_FILE, patchers: Path = PATCHERS) -> tuple[Cell, ...]:
        """The cells with the first release that each variant serves; the whole grid has their last ones too.

        Variants are those of families that follow no template, and those of templates. When a family of a template
        was born, or departed from it, is no edge: with many families nearly every cell would be one.
        """
        edges: set[str] = set()
        table = json.loads(fingerprints.read_text(encoding="utf-8"))
        for served in (*_served_alone(table, patchers), *_served_by_templates(self.cells, patchers)):
            edges.update(self._first_of(served))
        return tuple(cell for cell in self.cells if cell.minor in edges)

    def begin_at(self, minor: str, fingerprints: Path = FINGERPRINTS_FILE) -> tuple[str, ...]:
        """The families with a variant whose first cell this one is."""
        table = json.loads(fingerprints.read_text(encoding="utf-8"))
        return tuple(
            name for name, entry in table.items() if any(minor in self._first_of(served) for served in _served(entry))
        )

    def _first_of(self, served: set[str]) -> list[str]:
        """The minor of the first cell with one of these releases; none where there is no such cell."""
        return [cell.minor for cell in self.cells if cell.transformers in served][:1]

    def newest_of_each_transformer_lens(self) -> tuple[Cell, ...]:
        """The newest cell that runs with each release of TransformerLens in the grid."""
        return tuple({cell.transformer_lens: cell for cell in self.cells}.values())

    def on_python(self, python: str) -> tuple[Cell, ...]:
        """The cells that are tested on one Python, such as "3.12"."""
        return tuple(cell for cell in self.cells if python in cell.pythons)


def _served_alone(table: dict[str, Any], patchers: Path) -> Iterator[set[str]]:
    """For each variant of a family that follows no template, the releases that it serves."""
    for name, entry in table.items():
        # Nothing of the package is imported: it would want transformers here.
        if "template=" in (patchers / name / "__init__.py").read_text(encoding="utf-8"):
            continue
        yield from _served(entry)


def _served(entry: dict[str, Any]) -> Iterator[set[str]]:
    """For each variant in a family's table, the releases that it serves."""
    for shapes in entry["shapes"].values():
        yield {release for shape in shapes.values() for release in shape["releases"]}


def _served_by_templates(cells: Sequence[Cell], patchers: Path) -> Iterator[set[str]]:
    """For each variant of a template, the releases from the one that it is named after to the next variant's."""
    for folder in patchers.glob("*_like"):
        begins = sorted(minor_key(path.stem[1:].replace("_", ".")) for path in folder.glob("v*_*.py"))
        for begin, end in itertools.pairwise([*begins, (sys.maxsize,)]):
            yield {cell.transformers for cell in cells if begin <= minor_key(cell.minor) < end}


def minor_key(minor: str) -> tuple[int, ...]:
    """Sorts minors by number: "4.9" before "4.44" before "5.0"."""
    return tuple(int(part) for part in minor.split("."))


def parse_grid(text: str) -> Grid:
    """The grid that `text`, in TOML, describes."""
    data: dict[str, Any] = tomllib.loads(text)
    pythons = tuple(data["pins"]["python"])
    cells = (
        Cell(
            minor=minor,
            transformers=values["transformers"],
            transformer_lens=values["transformer-lens"],
            pythons=tuple(values.get("python", pythons)),
        )
        for minor, values in data["cells"].items()
    )
    return Grid(
        pythons=pythons,
        torch=data["pins"]["torch"],
        torch_requires=tuple(data["pins"]["torch-requires"]),
        cells=tuple(sorted(cells, key=lambda cell: minor_key(cell.minor))),
    )


def read_grid(path: Path = GRID_FILE) -> Grid:
    """The grid in `path`."""
    return parse_grid(path.read_text(encoding="utf-8"))
