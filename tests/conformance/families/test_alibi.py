"""Biases of attention scores by position are HuggingFace's, which are the paper's, also where TransformerLens's differ.

TransformerLens makes the slopes of all heads by one rule that the paper has for powers of two alone, so that its models
with another number of heads attend to something else. What is expected here is computed anew, in `tests/alibi.py`.
"""

import dataclasses
import importlib
import importlib.metadata
from typing import Any

import pytest
import torch
from packaging.version import Version

import mishformer_lens
from tests import alibi, capabilities
from tests.conformance.families.conftest import cases, here
from tests.kinds import Kind, kinds
from tests.models import BATCH, Case, left_padding, make_model, make_tokens
from tests.recording import assert_close, assert_same

LONG, FIRST = 12, 5
CLOSE = {"rtol": 1e-5, "atol": 2e-6}
NUMBERS = (4, 6)
"""Of heads: a power of two, and none."""
WITH_BIASES = [each for each in cases("eager", "sdpa", dtypes=(torch.float32,)) if kinds()[each.values[0].kind].alibi]


def model_with(case: Case, n_heads: int) -> Any:
    """A model of that kind, with as many heads of the usual width."""
    width = dict.fromkeys(("hidden_size", "d_model"), 8 * n_heads)
    changes: dict[str, Any] = width | dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), n_heads)
    return make_model(case, **changes).requires_grad_(False)


def expected_scores(form: Kind, cache: Any, key: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Scores as they are where nothing is masked, from queries and keys."""
    query = cache["blocks.1.attn.hook_q"]
    if form.clipped is not None:
        query, key = (each.clamp(-form.clipped, form.clipped) for each in (query, key))
    products = torch.einsum("bqhd,bkhd->bhqk", query, key) * form.scaling
    n_heads, keys = query.shape[2], key.shape[1]
    if form.alibi == "first key" and mask is not None:
        # Padding has no place, and those of other tokens count from the first that is none.
        places = (mask.cumsum(-1) - 1) * mask
        bias = alibi.slopes(n_heads)[:, None, None] * places[:, None, None, :]
    else:
        bias = alibi.biases(n_heads, keys, form.alibi)
    return products + form.alibi_scale * bias


def visible(queries: int, keys: int, mask: torch.Tensor | None) -> torch.Tensor:
    """Which scores are not masked, ``[batch, 1, query_pos, key_pos]``."""
    places = torch.arange(keys - queries, keys)
    causal = (places[:, None] >= torch.arange(keys)).expand(BATCH, 1, -1, -1)
    return causal if mask is None else causal & mask.bool()[:, None, None, :]


def form_of(case: Case) -> Kind:
    """The kind; its fused kernels add biases once, whatever eager attention does."""
    form = kinds()[case.kind]
    twice = bool(form.eager_differs) and case.attention != "eager"
    return dataclasses.replace(form, alibi_scale=form.alibi_scale / 2) if twice else form


@pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("n_heads", NUMBERS)
@pytest.mark.parametrize("case", WITH_BIASES)
def test_scores_have_the_paper_s_biases(case: Case, n_heads: int, padded: bool) -> None:
    form, plain, model = form_of(case), model_with(case, n_heads), model_with(case, n_heads)
    tokens, mask = make_tokens(pos=LONG), left_padding(pos=LONG) if padded else None
    names = [f"blocks.1.attn.{hook}" for hook in ("hook_q", "hook_k", "hook_attn_scores")]
    with mishformer_lens.instrument(model).caching(names) as cache:
        found = model(tokens, attention_mask=mask).logits
    expected = plain(tokens, attention_mask=mask).logits
    if case.attention == "eager":
        assert_same(found, expected)
    else:
        real = slice(None) if mask is None else mask.bool()
        assert_close(found[real], expected[real], "logits", rtol=1e-5, atol=1e-5)
    scores = expected_scores(form, cache, cache["blocks.1.attn.hook_k"], mask)
    seen = visible(LONG, LONG, mask).expand_as(scores)
    assert_close(cache["blocks.1.attn.hook_attn_scores"][seen], scores[seen], "scores", **CLOSE)


@pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")
@pytest.mark.parametrize("case", WITH_BIASES)
def test_scores_behind_a_cache_have_them(case: Case) -> None:
    form, model = form_of(case), model_with(case, 6)
    tokens = make_tokens(pos=LONG)
    names = [f"blocks.1.attn.{hook}" for hook in ("hook_q", "hook_k", "hook_attn_scores")]
    instrumentation = mishformer_lens.instrument(model)
    keys = []
    with instrumentation.caching(names) as cache:
        first = model(tokens[:, :FIRST], use_cache=True)
        keys.append(cache["blocks.1.attn.hook_k"])
        model(tokens[:, FIRST:], **capabilities.past(model, first), use_cache=True)
        keys.append(cache["blocks.1.attn.hook_k"])
    scores = expected_scores(form, cache, torch.cat(keys, 1), None)
    assert scores.shape == (BATCH, 6, LONG - FIRST, LONG)
    seen = visible(LONG - FIRST, LONG, None).expand_as(scores)
    assert_close(cache["blocks.1.attn.hook_attn_scores"][seen], scores[seen], "scores", **CLOSE)


@pytest.mark.parametrize("n_heads", [2, 4, 6, 7, 12, 16])
@pytest.mark.parametrize("family", sorted({kinds()[kind].family for kind in here() if kinds()[kind].alibi}))
def test_huggingface_s_slopes_are_the_paper_s(family: str, n_heads: int) -> None:
    module = capabilities.modeling_module(family)
    if family == "mpt":
        biases = module.build_mpt_alibi_tensor(n_heads, LONG)
        found = biases[:, 0, -1:] - biases[:, 0, -2:-1]
    else:
        biases = module.build_alibi_tensor(torch.ones(1, LONG, dtype=torch.long), n_heads, torch.float32)
        found = biases[:, 0, 1:2]
    # Falcon rounds them to bfloat16.
    tolerance = 4e-3 if family == "falcon" else 1e-6
    torch.testing.assert_close(found[:, 0], alibi.slopes(n_heads), rtol=tolerance, atol=0.0)


@pytest.mark.skipif(
    Version(importlib.metadata.version("transformer-lens")) >= Version("4"),
    reason="this release of TransformerLens computes no biases of its own",
)
def test_transformer_lens_s_slopes_are_others_for_six_heads() -> None:
    attention = importlib.import_module("transformer_lens.components.abstract_attention").AbstractAttention
    torch.testing.assert_close(attention.create_alibi_multipliers(4), alibi.slopes(4))
    difference = (attention.create_alibi_multipliers(6) - alibi.slopes(6)).abs().max()
    assert difference > 0.1
