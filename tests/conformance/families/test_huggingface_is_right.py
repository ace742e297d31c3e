"""Where TransformerLens's own models leave HuggingFace's numbers, hooked models keep to HuggingFace.

TransformerLens drops such a field of a configuration, or reads it another way, in some releases or in all. It is shown
that the field is felt in HuggingFace's model, and that a hooked model computes the very same.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.families.contract import contract
from tests.kinds import kinds, source
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same

LONG = 12
"""More positions than any kind's sliding window has."""

WITHOUT: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("llama3", {"rope_scaling": None}),
    ("llama", {"attention_bias": False}),
    ("llama", {"mlp_bias": False}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"use_sliding_window": False, "sliding_window": None}),
    ("qwen2_yarn", {"rope_scaling": None}),
    ("qwen3", {"use_sliding_window": False, "sliding_window": None}),
    ("qwen3", {"rope_scaling": None}),
    ("qwen3", {"attention_bias": False}),
    ("gemma2", {"sliding_window": 64}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"query_pre_attn_scalar": 10}),
    ("gemma3", {"sliding_window": 64}),
    ("gemma3", {"rope_scaling": None}),
    ("olmo", {"clip_qkv": None}),
    ("olmo3", {"sliding_window": 64}),
    ("olmo3", {"rope_scaling": None}),
    ("granite", {"residual_multiplier": 1.0}),
    ("granite", {"embedding_multiplier": 1.0}),
)
"""Kinds of models, and what turns off one thing that they have."""


@pytest.mark.parametrize(("kind", "without"), [each for each in WITHOUT if kinds()[each[0]].exists])
@torch.no_grad()
def test_what_is_felt_is_felt_in_a_hooked_model(kind: str, without: Mapping[str, Any]) -> None:
    tokens = make_tokens(pos=LONG)
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    expected = plain(tokens).logits
    with mishformer_lens.instrument(model).caching(list(contract(kind))):
        assert_same(model(tokens).logits, expected)
    differs = not torch.equal(expected, make_model(Case(kind), **without)(tokens).logits)
    form = kinds()[kind]
    felt = any(form.windows) if any("window" in field for field in without) else True
    if "rope_scaling" in without:
        felt = "ROPE_INIT_FUNCTIONS" in source(form.family)
    assert differs == felt, "this release does not feel it, against all others"
