"""The drop-in of families that project queries, keys and values at once, or add biases to scores by position."""

from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import ForwardArgumentsError, UnsupportedModelError
from mishformer_lens.patchers import FAMILIES
from tests.kinds import kinds
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_close, assert_same

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SERVED = [
    name
    for name, kind in kinds().items()
    if kind.exists and kind.family in ("bloom", "falcon", "gpt_bigcode", "mpt") and not kind.stream_from_norms
]


@pytest.fixture(params=SERVED)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of those families that TransformerLens has names for."""
    return str(request.param)


def make(kind: str) -> HookedTransformer:
    return HookedTransformer(make_model(Case(kind)))


@torch.no_grad()
def test_logits_are_hugging_face_s_and_activations_follow_from_the_weights(kind: str) -> None:
    plain, model = make_model(Case(kind)), make(kind)
    logits, cache = model.run_with_cache(make_tokens(), return_cache_object=False)
    assert_same(logits, plain(make_tokens()).logits)
    form = kinds()[kind]
    for layer, block in enumerate(model.blocks):
        attn, mlp = block.attn, block.mlp
        read = cache[f"blocks.{layer}.ln1.hook_normalized"]
        weights = (attn.W_Q, attn.b_Q), (attn._W_K, attn._b_K), (attn._W_V, attn._b_V)
        for letter, (weight, bias) in zip("qkv", weights, strict=True):
            found = torch.einsum("bpm,hmd->bphd", read, weight) + bias
            assert_close(found, cache[f"blocks.{layer}.attn.hook_{letter}"], letter, **CLOSE)
        z = cache[f"blocks.{layer}.attn.hook_z"]
        written = torch.einsum("bphd,hdm->bpm", z, attn.W_O) + attn.b_O
        assert_close(written, cache[f"blocks.{layer}.hook_attn_out"], "attention", **CLOSE)
        pre = cache[f"blocks.{layer}.ln2.hook_normalized"] @ mlp.W_in + mlp.b_in
        assert_close(pre, cache[f"blocks.{layer}.mlp.hook_pre"], "MLP", **CLOSE)
        post = cache[f"blocks.{layer}.mlp.hook_post"]
        assert_close(post @ mlp.W_out + mlp.b_out, cache[f"blocks.{layer}.hook_mlp_out"], "MLP", **CLOSE)
    assert_close(model.embed(make_tokens()), cache["hook_embed"], "embedding", **CLOSE)
    cfg = model.cfg
    assert cfg.n_key_value_heads == (None if form.key_value_heads == cfg.n_heads else form.key_value_heads)
    assert (cfg.d_mlp, cfg.parallel_attn_mlp) == (form.d_mlp, form.parallel)
    positions = "alibi" if form.alibi else "rotary" if form.rotary else "standard"
    assert cfg.positional_embedding_type == positions
    assert cfg.post_embedding_ln == bool(form.embedding_norm)


@torch.no_grad()
def test_weights_can_be_assigned(kind: str) -> None:
    model = make(kind)
    for name, value in model.tl_parameters().items():
        if name.endswith(("b_U", "b_O", "b_in", "b_out", ".b", "b_Q", "b_K", "b_V")) and not value.any():
            continue  # the model has no such bias
        component: Any = model
        *path, weight = name.split(".")
        for step in path:
            component = component[int(step)] if step.isdigit() else getattr(component, step)
        new = value + torch.linspace(0.1, 0.9, value.numel()).view_as(value)
        others = {other: each.clone() for other, each in model.tl_parameters().items() if other != name}
        setattr(component, weight, new)
        assert torch.equal(getattr(component, weight), new), name
        # Two names of one weight: of tied embeddings, and of a norm that attention and MLP share.
        same = [{"embed.W_E", "unembed.W_U"}]
        if kinds()[kind].shared_norm:
            same.append({name, name.replace("ln1", "ln2"), name.replace("ln2", "ln1")})
        for other, before in others.items():
            unchanged = torch.equal(model.tl_parameters()[other], before)
            assert unchanged or any({name, other} <= each for each in same), (name, other)


@torch.no_grad()
def test_processing_keeps_what_is_predicted_and_can_be_undone(kind: str) -> None:
    model = make(kind)
    before = {name: value.clone() for name, value in model.hf_model.state_dict().items()}
    expected = model(make_tokens()).log_softmax(-1)
    model.process_weights_()
    assert_close(model(make_tokens()).log_softmax(-1), expected, "log-probabilities", rtol=1e-3, atol=2e-4)
    model.undo_processing()
    assert_same(dict(model.hf_model.state_dict()), before)


def test_attention_with_biases_is_refused_by_hand(kind: str) -> None:
    model = make(kind)
    read = torch.zeros(1, 3, 32)
    if kinds()[kind].alibi:
        with pytest.raises(ForwardArgumentsError, match="biases by position"):
            model.blocks[0].attn(read, read, read)
    else:
        assert model.blocks[0].attn(read, read, read).shape == read.shape


def test_bloom_whose_stream_goes_on_from_norms_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="goes on from what comes of its norms"):
        HookedTransformer(make_model(Case("bloom_stream_from_norms")))
    assert FAMILIES["bloom"].drop_in is not None
