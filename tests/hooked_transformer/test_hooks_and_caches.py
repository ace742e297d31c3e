"""Hooks by name, caches, flags, and the errors of both."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import EagerFallbackWarning, HookShapeError, TokenizerError, UnknownHookError
from mishformer_lens.hooked_transformer.transformer_lens_compat import HookedRootModule
from tests.hooked_transformer.making import make_hf_model, make_model_of
from tests.hooked_transformer.scenarios import tokens

FLAGGED = {
    "set_use_attn_result": ["attn.hook_result"],
    "set_use_split_qkv_input": ["hook_q_input", "hook_k_input", "hook_v_input"],
    "set_use_hook_mlp_in": ["hook_mlp_in"],
    "set_use_attn_in": ["hook_attn_in"],
}


def zero(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    return torch.zeros_like(activation)


def test_it_is_what_transformer_lens_calls_a_hooked_module(model: HookedTransformer) -> None:
    assert isinstance(model, HookedRootModule)
    assert all(isinstance(point, HookPoint) for point in model.hook_dict.values())
    assert list(model.hook_points()) == list(model.hook_dict.values())
    assert model.mod_dict["blocks.0.attn.hook_z"] is model.hook_dict["blocks.0.attn.hook_z"]
    assert model.mod_dict["blocks.1.mlp"] is model.blocks[1].mlp
    assert model.hook_embed is model.hook_dict["hook_embed"]
    assert model.blocks[0].attn.hook_pattern.name == "blocks.0.attn.hook_pattern"
    assert model.blocks[0].ln1.hook_scale is model.hook_dict["blocks.0.ln1.hook_scale"]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_output_bit_is_that_of_hugging_face(kind: str, attention: str) -> None:
    expected = make_hf_model(kind, attention)(tokens(), labels=tokens())
    model = make_model_of(kind, attention=attention)
    assert torch.equal(model(tokens()), expected.logits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallbackWarning)
        cached, _ = model.run_with_cache(tokens())
    if attention == "eager":
        assert torch.equal(cached, expected.logits)
    assert torch.equal(model(tokens()), expected.logits)


def test_a_cache_of_everything_has_no_flagged_activation_until_its_flag_is_set(model: HookedTransformer) -> None:
    _, before = model.run_with_cache(tokens())
    assert isinstance(before, ActivationCache)
    for switch, names in FLAGGED.items():
        assert not any(f"blocks.0.{name}" in before for name in names)
        getattr(model, switch)(True)
        _, after = model.run_with_cache(tokens())
        assert {f"blocks.{i}.{name}" for name in names for i in (0, 1)} == set(after) - set(before)
        getattr(model, switch)(False)


@pytest.mark.parametrize("name", [name for names in FLAGGED.values() for name in names])
def test_a_flagged_hook_that_is_asked_for_works_without_its_flag(model: HookedTransformer, name: str) -> None:
    full = f"blocks.0.{name}"
    for names_filter in (full, [full], lambda each: each == full):
        assert list(model.run_with_cache(tokens(), names_filter=names_filter)[1]) == [full]
    plain = model(tokens())
    for chosen in (full, lambda each: each == full):
        assert not torch.allclose(model.run_with_hooks(tokens(), fwd_hooks=[(chosen, zero)]), plain)
    model.add_hook(full, zero)
    assert not torch.allclose(model(tokens()), plain)
    model.reset_hooks()
    assert torch.equal(model(tokens()), plain)


def test_a_filter_that_matches_everything_leaves_flagged_hooks_alone(model: HookedTransformer) -> None:
    fired = []
    model.run_with_hooks(tokens(), fwd_hooks=[(lambda _: True, lambda activation, hook: fired.append(hook.name))])
    assert fired == list(model.run_with_cache(tokens())[1])


def test_set_ungroup_grouped_query_attention_changes_nothing(model: HookedTransformer) -> None:
    plain = model(tokens())
    model.set_ungroup_grouped_query_attention(True)
    assert model.cfg.ungroup_grouped_query_attention is True
    assert torch.equal(model(tokens()), plain)


def test_unknown_names(model: HookedTransformer) -> None:
    typo = "blocks.0.attn.hook_patern"
    for call in (
        lambda: model.run_with_cache(tokens(), names_filter=typo),
        lambda: model.run_with_cache(tokens(), names_filter=["hook_embed", typo]),
        lambda: model.run_with_hooks(tokens(), fwd_hooks=[(typo, zero)]),
        lambda: model.add_hook(typo, zero),
        lambda: model.add_perma_hook(typo, zero),
        lambda: model.hook_dict[typo],
    ):
        with pytest.raises(UnknownHookError, match=r"Did you mean 'blocks.0.attn.hook_pattern'"):
            call()
    with pytest.raises(UnknownHookError, match="Did you mean 'hook_pattern'"):
        _ = model.blocks[0].attn.hook_patern
    with pytest.raises(UnknownHookError, match="must be a hook name"):
        model.run_with_cache(tokens(), names_filter=3)  # type: ignore[arg-type] # the wrong type is the point
    assert not any(point.is_active() for point in model.hook_dict.values())
    assert typo not in model.hook_dict


def test_a_hook_that_returns_the_wrong_shape_is_named_and_removed(model: HookedTransformer) -> None:
    with pytest.raises(HookShapeError, match=r"blocks\.0\.hook_resid_pre"):
        model.run_with_hooks(tokens(), fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: x[:, 1:])])
    assert not model.hook_dict["blocks.0.hook_resid_pre"].is_active()


def test_permanent_hooks_stay_until_they_are_asked_to_go(model: HookedTransformer) -> None:
    plain = model(tokens())
    model.add_perma_hook("blocks.0.hook_attn_out", zero)
    model.reset_hooks()
    assert not torch.equal(model(tokens()), plain)
    model.reset_hooks(including_permanent=True)
    assert torch.equal(model(tokens()), plain)


def test_a_check_of_ones_own_is_asked_before_a_hook_is_added() -> None:
    class Careful(HookedTransformer):
        def check_hooks_to_add(self, hook_point: Any, hook_point_name: str, *args: Any, **options: Any) -> None:  # noqa: ARG002
            assert not hook_point_name.endswith("hook_z"), "not here"

    model = Careful(make_hf_model("gpt2"))
    model.add_hook("hook_embed", zero)
    with pytest.raises(AssertionError, match="not here"):
        model.add_hook("blocks.0.attn.hook_z", zero)


def test_caching_hooks_that_stay(model: HookedTransformer) -> None:
    cache = model.add_caching_hooks(["hook_embed", "blocks.1.hook_resid_post"], incl_bwd=True)
    model(tokens(), return_type="loss").backward()
    assert {"hook_embed", "blocks.1.hook_resid_post", "hook_embed_grad"} <= set(cache)
    own: dict[str, torch.Tensor] = {}
    model.reset_hooks()
    model.cache_some(own, lambda name: name == "hook_embed")
    model(tokens())
    assert list(own) == ["hook_embed"]


def test_cache_as_a_dictionary_without_batch_axis_and_sliced(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(tokens()[:1], return_cache_object=False, remove_batch_dim=True, pos_slice=-1)
    assert type(cache) is dict
    cfg = model.cfg
    assert cache["blocks.0.hook_resid_pre"].shape == (1, cfg.d_model)
    assert cache["blocks.0.attn.hook_q"].shape == (1, cfg.n_heads, cfg.d_head)
    assert cache["blocks.0.attn.hook_pattern"].shape == (cfg.n_heads, 1, tokens().shape[1])


SPLIT_INPUTS = {
    "set_use_attn_in": ["hook_attn_in"],
    "set_use_split_qkv_input": ["hook_q_input", "hook_k_input", "hook_v_input"],
}
LN1 = ("blocks.0.ln1.hook_scale", "blocks.0.ln1.hook_normalized")


@pytest.mark.parametrize("switch", SPLIT_INPUTS)
def test_a_cache_with_split_inputs_leaves_ln1_as_it_is(model: HookedTransformer, switch: str) -> None:
    plain, expected = model.run_with_cache(tokens())
    getattr(model, switch)(True)
    logits, cache = model.run_with_cache(tokens())
    assert torch.equal(logits, plain)
    for name in LN1:
        assert torch.equal(cache[name], expected[name])
    _, sliced = model.run_with_cache(tokens(), pos_slice=(1, 3))
    for name in (*LN1, *(f"blocks.0.{name}" for name in SPLIT_INPUTS[switch])):
        assert torch.equal(sliced[name], cache[name][:, 1:3])
    model.set_use_attn_result(True)
    heads = model.run_with_cache(tokens())[1].stack_head_results(layer=1, apply_ln=True)
    torch.testing.assert_close(heads, expected.stack_head_results(layer=1, apply_ln=True))


@pytest.mark.parametrize("name", [name for names in SPLIT_INPUTS.values() for name in names])
def test_ln1_sees_heads_where_their_inputs_may_be_edited(model: HookedTransformer, name: str) -> None:
    def double_one(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        activation[:, :, 1] *= 2
        return activation

    names = [*LN1, f"blocks.0.{name}"]
    _, plain = model.run_with_cache(tokens(), names_filter=names)
    with model.hooks(fwd_hooks=[(f"blocks.0.{name}", double_one)]):
        _, cache = model.run_with_cache(tokens(), names_filter=names)
        _, sliced = model.run_with_cache(tokens(), names_filter=names, pos_slice=(1, 3))
    of_values = name in ("hook_attn_in", "hook_v_input")  # what normalises values is what is cached: it is the last
    for each, scale in zip(LN1, (2.0, 1.0), strict=True):
        expected = plain[each][:, :, None].repeat(1, 1, model.cfg.n_heads, 1)
        expected[:, :, 1] *= scale if of_values else 1
        torch.testing.assert_close(cache[each], expected, rtol=1e-3, atol=1e-3)
    for each in names:
        assert torch.equal(sliced[each], cache[each][:, 1:3])


def add_caching_hooks(model: HookedTransformer) -> Any:
    cache = model.add_caching_hooks()
    model(tokens())
    return cache


def cache_all(model: HookedTransformer) -> Any:
    cache: dict[str, torch.Tensor] = {}
    model.cache_all(cache)
    model(tokens())
    return cache


def keep_caching(model: HookedTransformer) -> Any:
    return model.run_with_cache(tokens(), reset_hooks_end=False)[1]


def cache_gradients(model: HookedTransformer) -> Any:
    return model.run_with_cache(tokens(), return_type="loss", incl_bwd=True)[1]


@pytest.mark.parametrize("switch", SPLIT_INPUTS)
@pytest.mark.parametrize("fill", [add_caching_hooks, cache_all, keep_caching, cache_gradients])
def test_ln1_sees_heads_where_real_hooks_cache_their_inputs(
    model: HookedTransformer, switch: str, fill: Callable[[HookedTransformer], Any]
) -> None:
    plain, expected = model.run_with_cache(tokens())
    getattr(model, switch)(True)
    cache = fill(model)
    for name in LN1:
        assert cache[name].shape == (2, 7, model.cfg.n_heads, expected[name].shape[-1])
        assert all(torch.equal(head, expected[name]) for head in cache[name].unbind(2))
    model.reset_hooks()
    assert torch.equal(model(tokens()), plain)


def test_gradients_are_cached(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(
        tokens(), return_type="loss", incl_bwd=True, names_filter=["blocks.0.hook_resid_pre"]
    )
    residual = model(tokens(), stop_at_layer=0).detach().requires_grad_()
    loss = model(residual, start_at_layer=0, tokens=tokens(), return_type="loss")
    (expected,) = torch.autograd.grad(loss, residual)
    torch.testing.assert_close(cache["blocks.0.hook_resid_pre_grad"], expected)


def test_a_copy_has_hooks_and_weights_of_its_own(model: HookedTransformer) -> None:
    duplicate = copy.deepcopy(model)
    plain = model(tokens())
    duplicate.add_hook("blocks.0.hook_mlp_out", zero)
    assert torch.equal(model(tokens()), plain)
    assert not torch.equal(duplicate(tokens()), plain)
    duplicate.reset_hooks()
    duplicate.blocks[0].attn.W_Q = torch.zeros_like(duplicate.blocks[0].attn.W_Q)
    assert not torch.equal(duplicate(tokens()), plain)
    assert torch.equal(model(tokens()), plain)


def test_a_cache_that_is_to_stay_stays_and_any_other_leaves_nothing(model: HookedTransformer) -> None:
    def is_caching() -> bool:
        return bool(model.is_caching)

    _, cache = model.run_with_cache(tokens(), return_cache_object=False)
    before = {name: value.clone() for name, value in cache.items()}
    assert not is_caching()
    with pytest.raises(TokenizerError, match="knows 0 to 299"):
        model.run_with_cache(tokens() + 300)
    assert not is_caching()
    assert not any(point.is_active() for point in model.hook_dict.values())
    model(tokens().flip(0))
    assert all(torch.equal(cache[name], value) for name, value in before.items())

    _, staying = model.run_with_cache(tokens(), reset_hooks_end=False, return_cache_object=False)
    assert is_caching()
    model(tokens()[:, :2])
    assert staying["blocks.0.hook_resid_pre"].shape[1] == 2
    model.reset_hooks()
    assert not is_caching()
    model(tokens()[:, :1])
    assert staying["blocks.0.hook_resid_pre"].shape[1] == 2
