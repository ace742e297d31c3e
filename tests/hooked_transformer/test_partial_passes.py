"""Passes through some of the layers after keys and values of a cache, and the masks of such passes."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import ForwardArgumentsError
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import TEXTS, make_model_of, make_reference
from tests.hooked_transformer.scenarios import tokens

N_LAYERS = 4
SIZES = {"gpt2": {"n_layer": N_LAYERS}, "gpt_neox": {"num_hidden_layers": N_LAYERS}}


def make_deep(kind: str, attention: str = "eager", tokenizer: Any | None = None) -> HookedTransformer:
    """More layers than two, so that a wrong layer's keys cannot be the right ones by chance."""
    return make_model_of(kind, tokenizer, attention=attention, **SIZES[kind.removesuffix("_sequential")])


def frozen_cache(model: Any, prompt: torch.Tensor) -> Any:
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, prompt.shape[0])
    model(prompt, past_kv_cache=past)
    past.freeze()
    return past


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4, -1])
def test_a_pass_that_starts_late_reads_the_keys_of_its_own_layers(kind: str, attention: str, layer: int) -> None:
    model = make_deep(kind, attention)
    past = frozen_cache(model, tokens()[:, :4])
    start = range(N_LAYERS)[layer:].start
    expected = model(tokens()[:, 4:], past_kv_cache=past)
    residual = model(tokens()[:, 4:], past_kv_cache=past, stop_at_layer=start)
    assert torch.equal(model(residual, start_at_layer=layer, past_kv_cache=past), expected)
    torch.testing.assert_close(expected, model(tokens())[:, 4:], rtol=1e-4, atol=1e-5)
    # and the whole stack of layers is there again afterwards
    assert torch.equal(model(tokens()[:, 4:], past_kv_cache=past), expected)


@pytest.mark.parametrize(("start", "stop"), [(1, 2), (1, 3), (2, 4), (0, 1)])
def test_a_few_layers_in_the_middle_read_their_own_keys(kind: str, start: int, stop: int) -> None:
    model = make_deep(kind)
    past = frozen_cache(model, tokens()[:, :4])
    before, after = (model(tokens()[:, 4:], past_kv_cache=past, stop_at_layer=layer) for layer in (start, stop))
    assert torch.equal(model(before, start_at_layer=start, stop_at_layer=stop, past_kv_cache=past), after)


@pytest.mark.parametrize("layer", [0, 1, 3, 4])
def test_the_mask_of_the_embedding_goes_with_its_residual_stream(kind: str, layer: int, tokenizer: Any) -> None:
    model = make_deep(kind, tokenizer=tokenizer)
    prompt = model.to_tokens(TEXTS, padding_side="left")
    assert (prompt[0, :2] == model.tokenizer.pad_token_id).all()
    with model._defaults(None, "left"):
        past = frozen_cache(model, prompt[:, :-2])
        residual, _, _, mask = model.input_to_embed(prompt[:, -2:], past_kv_cache=past)
        assert mask is not None
        assert mask.shape == prompt.shape
        assert not mask[0, 0]
        if layer:
            residual = model(residual, start_at_layer=0, stop_at_layer=layer, attention_mask=mask, past_kv_cache=past)
        got = model(residual, start_at_layer=layer, attention_mask=mask, past_kv_cache=past)
        assert torch.equal(got, model(prompt[:, -2:], past_kv_cache=past))
        # that of the new tokens alone says the same: the cache knows the others
        own = model(residual, start_at_layer=layer, attention_mask=mask[:, -2:], past_kv_cache=past)
        assert torch.equal(own, got)
        torch.testing.assert_close(got, model(prompt)[:, -2:], rtol=1e-4, atol=1e-5)


def test_the_embedding_and_the_layers_fill_a_cache_as_the_whole_pass_does(kind: str, tokenizer: Any) -> None:
    model = make_deep(kind, tokenizer=tokenizer)
    caches = []
    for in_parts in (False, True):
        past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
        for part in (tokens()[:, :3], tokens()[:, 3:]):
            if in_parts:
                residual, _, _, mask = model.input_to_embed(part, past_kv_cache=past)
                model(residual, start_at_layer=0, attention_mask=mask, past_kv_cache=past)
            else:
                model(part, past_kv_cache=past)
        caches.append(past)
    whole, parts = caches
    assert torch.equal(whole.previous_attention_mask, parts.previous_attention_mask)
    assert parts.previous_attention_mask.shape == (2, 7)
    for one, other in zip(whole.entries, parts.entries, strict=True):
        assert torch.equal(one.past_keys, other.past_keys)
        assert torch.equal(one.past_values, other.past_values)


@needs_reference
def test_the_mask_is_remembered_as_transformer_lens_does(tokenizer: Any) -> None:
    results = []
    for model in (make_model_of("gpt2", tokenizer), make_reference("gpt2", tokenizer)):
        past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
        model(tokens()[:, :3], past_kv_cache=past)
        residual, _, _, mask = model.input_to_embed(tokens()[:, 3:], past_kv_cache=past)
        logits = model(residual, start_at_layer=0, attention_mask=mask, past_kv_cache=past)
        results.append((logits, past.previous_attention_mask, past.entries[1].past_keys))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-4, atol=1e-5)


def test_a_frozen_cache_remembers_no_mask(kind: str, tokenizer: Any) -> None:
    model = make_deep(kind, tokenizer=tokenizer)
    past = frozen_cache(model, tokens()[:, :3])
    model.input_to_embed(tokens()[:, 3:], past_kv_cache=past)
    assert past.previous_attention_mask.shape == (2, 3)


@pytest.mark.parametrize("width", [2, 6, 8])
def test_a_mask_of_another_width_is_refused(kind: str, width: int) -> None:
    model = make_deep(kind)
    past = frozen_cache(model, tokens()[:, :4])
    residual = model(tokens()[:, 4:], past_kv_cache=past, stop_at_layer=1)
    for error in (ForwardArgumentsError, AssertionError):
        with pytest.raises(error, match=rf"shape \[2, {width}\]; it must be \[2, 3\]"):
            model(residual, start_at_layer=1, attention_mask=torch.ones(2, width, dtype=torch.long), past_kv_cache=past)
    with pytest.raises(ForwardArgumentsError, match="must be"):
        model(tokens()[:, 4:], attention_mask=torch.ones(2, 7, dtype=torch.long), past_kv_cache=past)
    with pytest.raises(ForwardArgumentsError, match="must be"):
        model(tokens(), attention_mask=torch.ones(2, 6, dtype=torch.long))


def test_a_cache_that_is_to_grow_wants_all_layers(kind: str) -> None:
    model = make_deep(kind)
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    model(tokens()[:, :4], past_kv_cache=past)
    residual = model(tokens()[:, 4:], stop_at_layer=1)
    for given in (past, DynamicCache()):
        with pytest.raises(ForwardArgumentsError, match="Freeze the cache"):
            model(residual, start_at_layer=1, past_kv_cache=given)
    assert past.entries[3].past_keys.shape[1] == 4


def test_positional_embeddings_of_padding_are_zero_by_hand(tokenizer: Any) -> None:
    model = make_model_of("gpt2", tokenizer)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    given = tokens()[:, :5]
    got = model.pos_embed(given, attention_mask=mask)
    assert not got[0, :2].any()
    assert torch.equal(got[0, 2:], model.W_pos[:3])
    assert torch.equal(got[1], model.W_pos[:5])
    assert torch.equal(model.pos_embed(given[:, 3:], 3, mask), got[:, 3:])
    # In a pass it is HuggingFace's, which gives padding the embedding of position 0.
    _, cache = model.run_with_cache(given, attention_mask=mask, names_filter="hook_pos_embed")
    assert torch.equal(cache["hook_pos_embed"][0, :2], model.W_pos[:1].expand(2, -1))
    assert torch.equal(cache["hook_pos_embed"][mask.bool()], got[mask.bool()])


@needs_reference
def test_positional_embeddings_by_hand_are_transformer_lens_s(tokenizer: Any) -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    ours, theirs = (
        make("gpt2", tokenizer).pos_embed(tokens()[:, :5], 0, mask) for make in (make_model_of, make_reference)
    )
    assert torch.equal(ours, theirs)
