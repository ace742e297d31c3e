"""The grid that is committed, and reading grids."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.grid import Cell, parse_grid, read_grid
from tools.locks import all_locks

GRID = read_grid()

SMALL = """
[pins]
python = ["3.11", "3.12"]
torch = "2.13.0"
torch-requires = ["filelock"]

[cells."5.0"]
transformers = "5.0.0"
transformer-lens = "3.2.1"

[cells."4.9"]
transformers = "4.9.1"
transformer-lens = "2.15.4"
python = ["3.11"]

[cells."4.44"]
transformers = "4.44.2"
transformer-lens = "2.15.4"
"""


def pins(cell: Cell) -> dict[str, set[str]]:
    """Package to its pinned versions (more than one where the platform or the Python decides) in a cell's lock."""
    found: dict[str, set[str]] = {}
    for line in cell.lock.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            match = re.match(r"([a-z0-9][a-z0-9.-]*)==([^ ;]+)( ; .+)?$", line)
            assert match, f"{cell.lock.name}: not a pin: {line!r}"
            found.setdefault(match[1], set()).add(match[2])
    return found


def test_cells_are_read_oldest_first() -> None:
    assert [cell.minor for cell in parse_grid(SMALL).cells] == ["4.9", "4.44", "5.0"]


def test_a_cell_runs_on_the_pythons_of_the_grid_unless_it_has_its_own() -> None:
    grid = parse_grid(SMALL)
    assert [cell.minor for cell in grid.on_python("3.11")] == ["4.9", "4.44", "5.0"]
    assert [cell.minor for cell in grid.on_python("3.12")] == ["4.44", "5.0"]


def test_a_minor_that_is_not_in_the_grid_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match=r"no cell '4\.45'.*4\.9, 4\.44, 5\.0"):
        parse_grid(SMALL).cell("4.45")


def test_the_committed_grid_has_every_minor_in_between() -> None:
    minors = [tuple(int(part) for part in cell.minor.split(".")) for cell in GRID.cells]
    assert minors[0] == (4, 44)
    for major in {major for major, _ in minors}:
        of_major = [minor for found, minor in minors if found == major]
        assert of_major == list(range(of_major[0], of_major[-1] + 1))


@pytest.mark.parametrize("cell", GRID.cells, ids=lambda cell: cell.minor)
def test_a_lock_pins_what_the_grid_says(cell: Cell) -> None:
    found = pins(cell)
    assert cell.transformers.startswith(f"{cell.minor}.")
    assert found["transformers"] == {cell.transformers}
    assert found["transformer-lens"] == {cell.transformer_lens}
    assert found["torch"] == {GRID.torch}
    assert {"pytest", "hypothesis", "accelerate", "matplotlib", "numpy"} <= found.keys()


@pytest.mark.parametrize("cell", GRID.cells, ids=lambda cell: cell.minor)
def test_a_lock_names_no_cuda_package(cell: Cell) -> None:
    assert not [name for name in pins(cell) if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_every_lock_belongs_to_the_grid_and_is_there() -> None:
    expected = {lock.path for lock in all_locks(GRID)}
    assert expected == set(GRID.newest.lock.parent.iterdir())


def make_patchers(folder: Path, **descriptions: str) -> Path:
    """Folders of families, each with a description."""
    for name, text in descriptions.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    return folder


def test_each_variant_has_its_first_cell_among_the_edges(tmp_path: Path) -> None:
    patchers = make_patchers(tmp_path / "patchers", gpt2="", gpt_neox="")
    table = tmp_path / "fingerprints.json"
    shapes = {
        "v4_9": {"a": {"releases": ["4.9.0", "4.9.1"]}, "b": {"releases": ["4.10.0", "4.44.2"]}},
        "v5_0": {"c": {"releases": ["5.0.0"]}},
    }
    table.write_text(json.dumps({"gpt2": {"shapes": shapes}, "gpt_neox": {"shapes": {}}}))
    assert [cell.minor for cell in parse_grid(SMALL).edges(table, patchers)] == ["4.9", "5.0"]
    del shapes["v4_9"]["a"], shapes["v4_9"]["b"]["releases"][0]
    table.write_text(json.dumps({"gpt2": {"shapes": shapes}, "gpt_neox": {"shapes": {}}}))
    assert [cell.minor for cell in parse_grid(SMALL).edges(table, patchers)] == ["4.44", "5.0"]


def test_edges_are_where_templates_move_and_not_where_their_families_were_born(tmp_path: Path) -> None:
    patchers = make_patchers(tmp_path / "patchers", llama_like="", llama='FAMILY = Family(template="llama_like")')
    table = tmp_path / "fingerprints.json"
    shapes = {"v4_44": {"a": {"releases": ["4.44.2"]}}, "v5_0": {"b": {"releases": ["5.0.0"]}}}
    table.write_text(json.dumps({"llama": {"shapes": shapes}}))
    assert parse_grid(SMALL).edges(table, patchers) == ()
    for name in ("v4_9", "v5_0"):
        (patchers / "llama_like" / f"{name}.py").write_text("")
    assert [cell.minor for cell in parse_grid(SMALL).edges(table, patchers)] == ["4.9", "5.0"]


def test_plain_nox_runs_no_more_cells_than_there_is_time_for() -> None:
    assert len(GRID.edges()) <= 16


def test_the_newest_release_is_an_edge_and_not_every_release_is() -> None:
    edges = GRID.edges()
    assert GRID.newest in edges
    assert len(edges) < len(GRID.cells)


def test_each_release_of_transformer_lens_has_its_newest_cell() -> None:
    assert [cell.minor for cell in parse_grid(SMALL).newest_of_each_transformer_lens()] == ["4.44", "5.0"]
