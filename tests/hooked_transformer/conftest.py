"""Models and tokenizers for the tests of the drop-in."""

from pathlib import Path
from typing import Any

import pytest

from mishformer_lens import HookedTransformer
from mishformer_lens.hooked_transformer.transformer_lens_compat import IS_REFERENCE, RELEASE
from tests.hooked_transformer.making import make_model_of, make_tokenizer
from tests.models import KINDS

needs_reference = pytest.mark.skipif(
    not IS_REFERENCE, reason=f"TransformerLens {RELEASE} has no HookedTransformer of 2.x; golden values stand in for it"
)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of 300 tokens that adds no BOS token by itself."""
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def bos_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same, but it adds a BOS token."""
    return make_tokenizer(tmp_path_factory.mktemp("bos_tokenizer"), prepends_bos=True)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model."""
    return str(request.param)


@pytest.fixture
def model(kind: str, tokenizer: Any) -> HookedTransformer:
    """The drop-in on a tiny model of every kind, with a tokenizer."""
    return make_model_of(kind, tokenizer)


@pytest.fixture
def saved(kind: str, tokenizer: Any, tmp_path: Path) -> Path:
    """A folder with a checkpoint of every kind and a tokenizer."""
    from tests.hooked_transformer.making import make_hf_model

    make_hf_model(kind).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path
