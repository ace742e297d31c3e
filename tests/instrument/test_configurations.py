"""Configurations by which a model runs other code than hook points are in."""

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import UnsupportedModelError
from tests.models import Case, make_model, make_tokens


def test_a_llama_in_slices_is_refused_and_left_alone() -> None:
    model = make_model(Case("llama"))
    model.config.pretraining_tp = 2
    with pytest.raises(UnsupportedModelError, match=r"pretraining_tp=2: .*Needed is pretraining_tp=1"):
        mishformer_lens.instrument(model)
    model.config.pretraining_tp = 1
    expected = model(make_tokens()).logits
    with mishformer_lens.instrument(model).caching(["hook_embed"]):
        assert torch.equal(model(make_tokens()).logits, expected)
