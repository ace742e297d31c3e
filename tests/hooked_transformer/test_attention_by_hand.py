"""``blocks[i].attn(query_input, key_input, value_input)``, as TransformerLens's attention is called."""

import warnings
from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import EagerFallbackWarning, ForwardArgumentsError
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import make_hf_model, make_model_of, make_reference
from tests.hooked_transformer.scenarios import tokens


def cached(model: Any, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallbackWarning)
        return model.run_with_cache(tokens(), **arguments)[1]


def inputs_of(cache: Any, layer: int = 1) -> torch.Tensor:
    normalized: torch.Tensor = cache[f"blocks.{layer}.ln1.hook_normalized"]
    return normalized


@pytest.mark.parametrize("layer", [0, 1])
def test_it_gives_what_the_layer_writes(model: HookedTransformer, layer: int) -> None:
    cache = cached(model)
    given = inputs_of(cache, layer)
    got = model.blocks[layer].attn(query_input=given, key_input=given, value_input=given)
    torch.testing.assert_close(got, cache[f"blocks.{layer}.hook_attn_out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}])
def test_the_scale_is_the_model_s(changes: dict[str, Any]) -> None:
    model = HookedTransformer(make_hf_model("gpt2", **changes))
    cache = cached(model)
    given = inputs_of(cache)
    got = model.blocks[1].attn(given, given, given)
    torch.testing.assert_close(got, cache["blocks.1.hook_attn_out"], rtol=1e-4, atol=1e-5)


def test_padding_is_not_attended_to(model: HookedTransformer) -> None:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :3] = 0
    cache = cached(model, attention_mask=mask)
    given = inputs_of(cache)
    got = model.blocks[1].attn(given, given, given, attention_mask=mask)
    expected = cache["blocks.1.hook_attn_out"]
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-5)


def test_its_hooks_see_it_and_those_of_other_parts_do_not(model: HookedTransformer) -> None:
    cache = cached(model)
    given = inputs_of(cache)
    seen = {}

    def keep(activation: torch.Tensor, hook: Any) -> None:
        seen[hook.name] = activation

    model.add_hook(lambda _: True, keep)
    model.blocks[1].attn(given, given, given)
    model.reset_hooks()
    assert list(seen) == [name for name in cache if name.startswith("blocks.1.attn.")]
    for name, activation in seen.items():
        # Masked scores are the lowest number, in some releases less what the score was.
        torch.testing.assert_close(activation.clamp(min=-1e6), cache[name].clamp(min=-1e6), rtol=1e-4, atol=1e-5)


def test_an_edit_of_a_head_s_result_counts(model: HookedTransformer) -> None:
    given = inputs_of(cached(model))
    attn = model.blocks[1].attn
    model.add_hook("blocks.1.attn.hook_result", lambda result, hook: result * torch.tensor([1.0, 0, 0, 0])[:, None])
    got = attn(given, given, given)
    model.reset_hooks()
    model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * torch.tensor([1.0, 0, 0, 0])[:, None])
    torch.testing.assert_close(got, attn(given, given, given), rtol=1e-4, atol=1e-5)


def test_inputs_of_each_head(model: HookedTransformer) -> None:
    given = inputs_of(cached(model))
    attn = model.blocks[1].attn
    heads = given[:, :, None].expand(-1, -1, 4, -1)
    torch.testing.assert_close(attn(heads, heads, given), attn(given, given, given), rtol=1e-4, atol=1e-5)
    one = heads.clone()
    one[:, :, 2] = 0
    assert not torch.allclose(attn(heads, heads, one), attn(given, given, given))


def test_values_of_another_stream(model: HookedTransformer) -> None:
    given = inputs_of(cached(model))
    attn = model.blocks[1].attn
    assert torch.allclose(attn(given, given, torch.zeros_like(given)), _value_bias(attn), atol=1e-5)


def _value_bias(attn: Any) -> torch.Tensor:
    # The pattern's rows add up to 1, so that values which are a bias alone are passed on as they are.
    bias: torch.Tensor = torch.einsum("hd,hdm->m", attn.b_V, attn.W_O) + attn.b_O
    return bias


def test_an_entry_of_a_cache_is_read_and_extended(model: HookedTransformer) -> None:
    cache = cached(model)
    given = inputs_of(cache)
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    model(tokens()[:, :4], past_kv_cache=past)
    rest = given[:, 4:]
    past.freeze()
    for _ in range(2):
        got = model.blocks[1].attn(rest, rest, rest, past_kv_cache_entry=past.entries[1])
        torch.testing.assert_close(got, cache["blocks.1.hook_attn_out"][:, 4:], rtol=1e-4, atol=1e-5)
    assert past.entries[1].past_keys.shape[1] == 4
    past.unfreeze()
    mask = torch.ones(2, 7)
    model.blocks[1].attn(rest, rest, rest, past_kv_cache_entry=past.entries[1], attention_mask=mask)
    assert past.entries[1].past_keys.shape[1] == 7


def test_an_additive_mask(model: HookedTransformer) -> None:
    given = inputs_of(cached(model))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, 0] = 0
    additive = (1.0 - mask[:, None, None, :]) * -1e9
    attn = model.blocks[1].attn
    got = attn(given, given, given, additive_attention_mask=additive)[1]
    torch.testing.assert_close(got, attn(given, given, given)[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        attn(given, given, given, additive_attention_mask=additive)[0], attn(given, given, given)[0]
    )


def test_gradients_reach_the_weights(model: HookedTransformer) -> None:
    given = inputs_of(cached(model))
    model.blocks[1].attn(given, given, given).sum().backward()
    assert model.blocks[1].attn.query.weight.grad.abs().sum() > 0


@needs_reference
def test_same_as_transformer_lens(kind: str) -> None:
    ours, theirs = make_model_of(kind), make_reference(kind)
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 7, 32, generator=generator) for _ in range(3))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :3] = 0
    for arguments in ({}, {"attention_mask": mask}):
        got, expected = (model.blocks[1].attn(q, k, v, **arguments) for model in (ours, theirs))
        attended = mask.bool() if arguments else torch.ones(2, 7, dtype=torch.bool)
        torch.testing.assert_close(got[attended], expected[attended], rtol=1e-4, atol=1e-5)


def test_wrong_arguments(kind: str) -> None:
    model = make_model_of(kind)
    given = torch.zeros(2, 7, 32)
    attn = model.blocks[0].attn
    for error in (ForwardArgumentsError, AssertionError):
        with pytest.raises(error, match="no such bias"):
            attn(given, given, given, position_bias=torch.zeros(1, 4, 7, 7))
        with pytest.raises(error, match=r"attention_mask has shape \[2, 6\]; it must be \[batch, 7\]"):
            attn(given, given, given, attention_mask=torch.ones(2, 6))
        with pytest.raises(error, match="7 queries after 0 earlier keys, and 5 new"):
            attn(given, given[:, :5], given[:, :5])
    if kind != "gpt2":
        config = model.hf_model.config
        name = "rope_parameters" if "rope_parameters" in config.to_dict() else "rope_scaling"
        setattr(config, name, (getattr(config, name) or {}) | {"rope_type": "linear", "factor": 2.0})
        with pytest.raises(ForwardArgumentsError, match=r"'linear'.*model.blocks\[i\]\(residual\)"):
            attn(given, given, given)
