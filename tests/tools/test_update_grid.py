"""Proposing new cells and locks from an index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from packaging.version import Version

from tests.tools.index import Index, direct_dependencies, serving
from tools import update_grid
from tools.grid import GRID_FILE, LOCKS, parse_grid, read_grid
from tools.locks import LockError, all_locks, pinned
from tools.update_grid import Release, as_diff, newest_of_each_minor, proposal, proposed_cells, updated_grid_text

NOW = datetime(2030, 1, 10, tzinfo=UTC)
GRID = read_grid()
NEWEST = GRID.newest
NEXT_MINOR = f"{Version(NEWEST.transformers).major}.{Version(NEWEST.transformers).minor + 1}"
NEXT = f"{NEXT_MINOR}.0"


def release(version: str, *, age: timedelta = timedelta(days=30), withdrawn: bool = False) -> Release:
    return Release(Version(version), NOW - age, withdrawn)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    """An index that has the grid as it is, and one release of everything else that a lock needs."""
    with serving() as served:
        for name in direct_dependencies() - {"torch", "transformers", "transformer-lens"}:
            served.add(name, "2100.0")
        for requirement in GRID.torch_requires:
            served.add(requirement.split(">=")[0], "2100.0")
        served.add("torch", GRID.torch)
        for cell in GRID.cells:
            served.add("transformers", cell.transformers)
            served.add("transformer-lens", cell.transformer_lens)
        for name in ("UV_INDEX_URL", "UV_TORCH_BACKEND", "UV_FIND_LINKS", "UV_EXCLUDE_NEWER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{served.url}/simple/")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
        yield served


def test_the_newest_final_release_of_a_minor_counts() -> None:
    releases = [release("5.1.0"), release("5.1.2"), release("5.1.1"), release("5.2.0rc1")]
    assert newest_of_each_minor(releases, before=NOW) == {"5.1": Version("5.1.2")}


def test_a_withdrawn_release_does_not_count() -> None:
    releases = [release("5.1.0"), release("5.1.1", withdrawn=True)]
    assert newest_of_each_minor(releases, before=NOW) == {"5.1": Version("5.1.0")}


def test_only_what_the_grid_lacks_is_proposed() -> None:
    newest = {NEWEST.minor: Version(NEWEST.transformers), NEXT_MINOR: Version(NEXT), "4.43": Version("4.43.4")}
    assert proposed_cells(GRID, newest) == [(NEXT_MINOR, Version(NEXT))]


def test_a_patch_release_moves_its_cell() -> None:
    assert proposed_cells(GRID, {"4.57": Version("4.57.99")}) == [("4.57", Version("4.57.99"))]


def test_a_moved_cell_leaves_the_rest_of_the_file_as_it_was() -> None:
    before = GRID_FILE.read_text(encoding="utf-8")
    after = updated_grid_text(before, Version("4.57.99"), "4.57", None)
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert changed == [(f'transformers = "{GRID.cell("4.57").transformers}"', 'transformers = "4.57.99"')]


def test_a_new_cell_comes_last() -> None:
    after = parse_grid(updated_grid_text(GRID_FILE.read_text(encoding="utf-8"), Version(NEXT), NEXT_MINOR, "4.3.0"))
    assert after.newest.transformers == NEXT
    assert after.cells[:-1] == GRID.cells


def test_a_new_minor_is_proposed_with_its_cell_and_lock(index: Index) -> None:
    index.add("transformers", NEXT, "2030-01-07T00:00:00Z")
    files = proposal(GRID_FILE.read_text(encoding="utf-8"), now=NOW, only_releases=True)
    assert set(files) == {GRID_FILE, LOCKS / f"transformers-{NEXT_MINOR}.txt", LOCKS / "types.txt"}
    pins = pinned(files[LOCKS / f"transformers-{NEXT_MINOR}.txt"])
    newest_lens = max((cell.transformer_lens for cell in GRID.cells), key=Version)
    assert (pins["transformers"], pins["transformer-lens"], pins["torch"]) == (NEXT, newest_lens, GRID.torch)
    assert f'+[cells."{NEXT_MINOR}"]' in as_diff(files)


def test_a_release_younger_than_two_days_is_not_proposed(index: Index) -> None:
    index.add("transformers", NEXT, "2030-01-08T00:00:01Z")
    assert proposal(GRID_FILE.read_text(encoding="utf-8"), now=NOW, only_releases=True) == {}


@pytest.mark.usefixtures("index")
def test_without_only_releases_every_lock_is_refreshed() -> None:
    text = GRID_FILE.read_text(encoding="utf-8")
    newest_only = text[: text.index("[cells.")] + text[text.index(f'[cells."{NEWEST.minor}"]') :]
    files = proposal(newest_only, now=NOW)
    locks = {lock.path for lock in all_locks(parse_grid(newest_only))}
    assert locks < set(files)
    assert pinned(files[NEWEST.lock])["numpy"] == "2100.0"


def test_a_release_that_nothing_fits_is_an_error(index: Index) -> None:
    index.add("transformers", NEXT, "2030-01-07T00:00:00Z")
    del index.projects["einops"]
    with pytest.raises(LockError, match="einops"):
        proposal(GRID_FILE.read_text(encoding="utf-8"), now=NOW, only_releases=True)


def test_nothing_is_written_without_being_asked(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("transformers", NEXT)
    before = GRID_FILE.read_bytes()
    monkeypatch.setattr("sys.argv", ["update_grid", "--only-releases"])
    update_grid.main()
    assert f'+transformers = "{NEXT}"' in capsys.readouterr().out
    assert GRID_FILE.read_bytes() == before
    assert not (LOCKS / f"transformers-{NEXT_MINOR}.txt").exists()
