"""The package, imported where transformers may be missing."""

import warnings

with warnings.catch_warnings():
    # Without transformers the package says so when it is imported; its resolver can judge sources all the same.
    warnings.simplefilter("ignore", UserWarning)
    import mishformer_lens  # noqa: F401

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mishformer_lens.patchers import fingerprints
from mishformer_lens.patchers.resolver import ALLOW_UNVERIFIED_VARIABLE
from tests.patchers.made_up import make_table, use_table


@pytest.fixture(autouse=True)
def _no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the person who runs the tests has set."""
    monkeypatch.delenv(ALLOW_UNVERIFIED_VARIABLE, raising=False)
    # Other tests may have imported transformers; these have their own, on the path.
    monkeypatch.delitem(sys.modules, "transformers", raising=False)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The table of the made-up family, in the place of the committed one."""
    use_table(monkeypatch, tmp_path, make_table())
    yield
    fingerprints.verified.cache_clear()
