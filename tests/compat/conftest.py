from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mishformer_lens.compat.cache import SourceCache
from mishformer_lens.compat.pip_settings import PipSettings
from mishformer_lens.compat.sources import Registry
from tests.compat.fake_index import GPT2, GPT_NEOX, FakeIndex, serve


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    """An index with two releases."""
    made = FakeIndex()
    for release in ("4.44.0", "4.45.2"):
        made.add(release, {GPT2: f"gpt2 = {release!r}\n", GPT_NEOX: f"gpt_neox = {release!r}\n"})
    with serve(made):
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> SourceCache:
    return SourceCache(tmp_path / "cache")


@pytest.fixture
def registry(index: FakeIndex, cache: SourceCache) -> Callable[..., Registry]:
    """Makes a registry, as a new process would, on the same cache."""

    def make(offline: bool = False) -> Registry:
        return Registry(cache, PipSettings(index_url=index.url, retries=0, timeout=5), offline=offline)

    return make
