"""Sources of releases, out of a package index, and every way in which that goes wrong."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mishformer_lens.compat.cache import SourceCache
from mishformer_lens.compat.pip_settings import PipSettings
from mishformer_lens.compat.sources import Registry, read_source
from mishformer_lens.errors import (
    ArchiveError,
    CacheError,
    RegistryError,
    ReleaseNotFoundError,
    SourceFileMissingError,
)
from tests.compat.fake_index import GPT2, GPT_NEOX, FakeIndex

Make = Callable[..., Registry]


def snapshot(cache: SourceCache) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache.folder)): path.read_bytes() for path in cache.folder.rglob("*") if path.is_file()
    }


def test_lists_final_releases_in_order(index: FakeIndex, registry: Make) -> None:
    for release in ("4.9.0", "5.0.0rc1", "4.48.3", "5.10.1"):
        index.add(release, {})
    index.add("4.46.0", {})
    index.yanked["4.46.0"] = "broken"
    assert registry().releases() == ["4.9.0", "4.44.0", "4.45.2", "4.48.3", "5.10.1"]
    assert registry().releases(since="4.45", until="4.48") == ["4.45.2", "4.48.3"]


def test_reads_only_parts_of_a_wheel(index: FakeIndex, registry: Make) -> None:
    noise = bytes(hashlib.sha256(bytes([n % 256, n // 256])).digest()[0] for n in range(2**16)) * 64
    index.add(
        "5.0.0", {"transformers/large.bin": noise[::-1], GPT2: "x = 1\n", **{f"f{n}": noise[n:] for n in range(8)}}
    )
    size = len(index.wheels["5.0.0"])
    assert read_source("gpt2", "5.0.0", registry()) == "x = 1\n"
    assert index.sent < size + 2**20


def test_reads_a_whole_wheel_where_parts_are_not_served(index: FakeIndex, registry: Make, cache: SourceCache) -> None:
    index.ranges = False
    assert read_source("gpt2", "4.45.2", registry()) == "gpt2 = '4.45.2'\n"
    assert not list(cache.folder.glob("*.part"))


def test_everything_comes_from_the_cache_the_second_time(index: FakeIndex, registry: Make) -> None:
    first = [read_source(family, "4.45.2", registry()) for family in ("gpt2", "gpt_neox")]
    asked = len(index.requests)
    assert [read_source(family, "4.45.2", registry()) for family in ("gpt2", "gpt_neox")] == first
    assert len(index.requests) == asked


def test_works_offline_with_what_was_fetched(index: FakeIndex, registry: Make) -> None:
    read_source("gpt2", "4.45.2", registry())
    asked = len(index.requests)
    offline = registry(offline=True)
    assert offline.releases() == ["4.44.0", "4.45.2"]
    assert read_source("gpt_neox", "4.45.2", offline) == "gpt_neox = '4.45.2'\n"
    with pytest.raises(RegistryError, match="without --offline"):
        read_source("gpt2", "4.44.0", offline)
    assert len(index.requests) == asked


def test_offline_without_a_cache_is_an_error(registry: Make) -> None:
    with pytest.raises(RegistryError, match="no list of releases is in the cache"):
        registry(offline=True).releases()


def test_another_wheel_under_the_same_number_is_another_source(index: FakeIndex, registry: Make) -> None:
    assert read_source("gpt2", "4.45.2", registry()) == "gpt2 = '4.45.2'\n"
    index.add("4.45.2", {GPT2: "patched = True\n"})
    index.add("4.45.3", {})
    fresh = registry()
    with pytest.raises(SourceFileMissingError):
        read_source("gpt2", "4.45.3", fresh)  # unknown to the list in the cache, so a new list is fetched
    assert read_source("gpt2", "4.45.2", fresh) == "patched = True\n"


def test_a_new_release_is_found_although_the_list_is_fresh(index: FakeIndex, registry: Make) -> None:
    registry().releases()
    index.add("5.24.0", {GPT2: "new = 1\n"})
    assert read_source("gpt2", "5.24.0", registry()) == "new = 1\n"


def test_a_damaged_entry_of_the_cache_is_fetched_again(registry: Make, cache: SourceCache) -> None:
    read_source("gpt2", "4.45.2", registry())
    for path in (cache.folder / "texts").iterdir():
        path.write_text("damaged")
    for path in (cache.folder / "indexes").iterdir():
        path.write_text('{"fetched_at": 1, "wheels": {"4.45.2": {"url": 3}}}')
    assert read_source("gpt2", "4.45.2", registry()) == "gpt2 = '4.45.2'\n"


def test_the_cache_stays_under_its_limit(index: FakeIndex, tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "small", limit=3000)
    settings = PipSettings(index_url=index.url)
    for number in range(6):
        index.add(f"5.{number}.0", {GPT2: f"{number}" * 1000, GPT_NEOX: ""})
        assert read_source("gpt2", f"5.{number}.0", Registry(cache, settings)) == f"{number}" * 1000
    assert sum(path.stat().st_size for path in (cache.folder / "texts").iterdir()) <= 3000
    assert read_source("gpt2", "5.0.0", Registry(cache, settings)) == "0" * 1000


def test_an_unreachable_index_is_named_without_its_password(cache: SourceCache) -> None:
    settings = PipSettings(index_url="http://me:secret@127.0.0.1:9/simple/", retries=0, timeout=1)
    with pytest.raises(RegistryError, match=r"http://127.0.0.1:9/simple/ cannot be reached.*--source") as caught:
        Registry(cache, settings).releases()
    assert "secret" not in str(caught.value)


def test_an_index_that_went_down_is_answered_from_an_old_list_with_a_warning(
    index: FakeIndex, registry: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_source("gpt2", "4.45.2", registry())
    monkeypatch.setattr("mishformer_lens.compat.sources.FRESH_FOR", -1.0)
    index.page = b"<html>maintenance</html>"
    with caplog.at_level(logging.WARNING):
        assert registry().releases() == ["4.44.0", "4.45.2"]
    assert "Going on with the list of releases of" in caplog.text


@pytest.mark.parametrize("page", [b"<html>hello", b"[1, 2]", b'{"meta": {"api-version": "9.0"}, "files": []}'])
def test_something_that_is_no_index_is_an_error(index: FakeIndex, registry: Make, page: bytes) -> None:
    index.page = page
    with pytest.raises(RegistryError, match=r"not a package index|no release"):
        registry().releases()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wheel_cut_in_half_is_an_error_and_nothing_is_kept(
    index: FakeIndex, registry: Make, cache: SourceCache, ranges: bool
) -> None:
    read_source("gpt2", "4.44.0", registry())
    before = snapshot(cache)
    whole = index.wheels["4.45.2"]
    index.hashes["4.45.2"] = hashlib.sha256(whole).hexdigest()
    index.wheels["4.45.2"] = whole[: len(whole) // 2]
    index.ranges = ranges
    with pytest.raises(ArchiveError, match=r"4\.45\.2"):
        read_source("gpt2", "4.45.2", registry())
    assert snapshot(cache) == before


def test_a_wheel_with_another_hash_is_an_error(index: FakeIndex, registry: Make) -> None:
    index.ranges = False
    index.hashes["4.45.2"] = "0" * 64
    with pytest.raises(ArchiveError, match="another hash"):
        read_source("gpt2", "4.45.2", registry())


@pytest.mark.parametrize("ranges", [True, False])
def test_a_zip_bomb_is_left_alone(index: FakeIndex, registry: Make, cache: SourceCache, ranges: bool) -> None:
    index.add("5.0.0", {GPT2: bytes(64 * 2**20), GPT_NEOX: "x = 1\n"})
    index.ranges = ranges
    assert len(index.wheels["5.0.0"]) < 2**20
    with pytest.raises(ArchiveError, match="would unpack to"):
        read_source("gpt2", "5.0.0", registry())
    assert not (cache.folder / "texts").exists()


def test_paths_cannot_leave_the_cache(index: FakeIndex, registry: Make, cache: SourceCache, tmp_path: Path) -> None:
    index.add("5.0.0", {"../../outside.py": "x = 1\n"})
    index.hashes["5.0.0"] = "../../../outside"
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(cache.folder)}
    assert registry().read("5.0.0", "../../outside.py") == "x = 1\n"
    with pytest.raises(ReleaseNotFoundError, match="no version number"):
        registry().read("../../5.0.0", GPT2)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(cache.folder)} == outside


def test_a_withdrawn_release_is_an_error_with_its_reason(index: FakeIndex, registry: Make) -> None:
    index.yanked["4.45.2"] = "cannot be installed"
    with pytest.raises(ReleaseNotFoundError, match=r"withdrawn by its authors \(cannot be installed"):
        read_source("gpt2", "4.45.2", registry())


def test_a_release_that_does_not_exist_is_an_error_with_its_neighbours(registry: Make) -> None:
    with pytest.raises(ReleaseNotFoundError, match=r"There are 4\.45\.2\."):
        read_source("gpt2", "4.45.7", registry())


def test_a_release_without_the_file_is_an_error_also_the_second_time(index: FakeIndex, registry: Make) -> None:
    index.add("2.0.0", {"transformers/modeling_gpt2.py": ""})
    for _ in range(2):
        with pytest.raises(SourceFileMissingError, match="lacks this model"):
            read_source("gpt2", "2.0.0", registry())
    assert len([path for path in index.requests if "2.0.0" in path]) <= 2


def test_a_cache_that_cannot_be_written_is_an_error(index: FakeIndex, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CacheError, match="MISHFORMER_LENS_CACHE"):
        Registry(SourceCache(blocked), PipSettings(index_url=index.url)).releases()


def test_folders_of_wheels_and_local_indexes_count_too(index: FakeIndex, cache: SourceCache, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "transformers-4.45.2-py3-none-any.whl").write_bytes(index.wheels["4.45.2"])
    (links / "transformers-nonsense.whl").write_bytes(b"")
    local = tmp_path / "simple" / "transformers"
    local.mkdir(parents=True)
    (local / "index.html").write_text('<a href="../../w.whl">transformers-4.44.0-py3-none-any.whl</a>')
    (tmp_path / "w.whl").write_bytes(index.wheels["4.44.0"])
    settings = PipSettings(
        find_links=(str(links),), use_indexes=True, index_url=(tmp_path / "simple").as_uri(), retries=0
    )
    assert Registry(cache, settings).releases() == ["4.44.0", "4.45.2"]
    assert read_source("gpt2", "4.45.2", Registry(cache, settings)) == "gpt2 = '4.45.2'\n"
    assert read_source("gpt2", "4.44.0", Registry(cache, settings)) == "gpt2 = '4.44.0'\n"
    with pytest.raises(RegistryError, match="nowhere"):
        Registry(cache, PipSettings(use_indexes=False)).releases()
