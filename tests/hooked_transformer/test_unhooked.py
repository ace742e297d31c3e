"""A drop-in whose hook points somebody else took off: it runs, and whatever needs them says that they are gone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer, instrument
from mishformer_lens.errors import NotInstrumentedError
from tests.hooked_transformer.scenarios import tokens


def by_remove(model: HookedTransformer) -> None:
    model.instrumentation.remove()


def by_an_inner_context(model: HookedTransformer) -> None:
    with instrument(model.hf_model):
        pass


@pytest.fixture(params=[by_remove, by_an_inner_context])
def unhooked(request: pytest.FixtureRequest, model: HookedTransformer) -> HookedTransformer:
    """The drop-in without its hook points."""
    request.param(model)
    return model


def zero(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    return torch.zeros_like(activation)


NEED_HOOKS: dict[str, Callable[[Any], Any]] = {
    "run_with_hooks": lambda model: model.run_with_hooks(tokens(), fwd_hooks=[("hook_embed", zero)]),
    "run_with_hooks, a filter": lambda model: model.run_with_hooks(tokens(), fwd_hooks=[(lambda _: True, zero)]),
    "run_with_hooks, backward": lambda model: model.run_with_hooks(
        tokens(), bwd_hooks=[("hook_embed", zero)], reset_hooks_end=False
    ),
    "run_with_cache": lambda model: model.run_with_cache(tokens()),
    "run_with_cache, some": lambda model: model.run_with_cache(tokens(), names_filter="ln_final.hook_scale"),
    "run_with_cache, staying": lambda model: model.run_with_cache(tokens(), reset_hooks_end=False),
    "run_with_cache, gradients": lambda model: model.run_with_cache(tokens(), return_type="loss", incl_bwd=True),
    "add_hook": lambda model: model.add_hook("blocks.0.attn.hook_z", zero),
    "add_perma_hook": lambda model: model.add_perma_hook("blocks.0.attn.hook_z", zero),
    "add_caching_hooks": lambda model: model.add_caching_hooks("hook_embed"),
    "cache_all": lambda model: model.cache_all({}),
    "hook_embed": lambda model: model.hook_embed.add_hook(zero),
    "blocks[1].hook_resid_post": lambda model: model.blocks[1].hook_resid_post.add_hook(zero),
    "blocks[1].attn.hook_q": lambda model: model.blocks[1].attn.hook_q.add_perma_hook(zero),
    "hook_dict": lambda model: model.hook_dict["ln_final.hook_normalized"].add_hook(zero, dir="bwd"),
    "start_at_layer": lambda model: model(torch.zeros(2, 7, 32), start_at_layer=1),
}


@pytest.mark.parametrize("name", NEED_HOOKS)
def test_what_needs_hook_points_says_that_they_are_gone(unhooked: HookedTransformer, name: str) -> None:
    plain = unhooked.hf_model(tokens()).logits
    with pytest.raises(NotInstrumentedError, match=r"removed"):
        NEED_HOOKS[name](unhooked)
    assert torch.equal(unhooked(tokens()), plain)


@pytest.mark.parametrize("name", NEED_HOOKS)
def test_the_same_works_while_they_are_on(model: HookedTransformer, name: str) -> None:
    NEED_HOOKS[name](model)


def test_what_needs_none_still_works(unhooked: HookedTransformer) -> None:
    expected = unhooked.hf_model(tokens(), labels=tokens())
    assert torch.equal(unhooked(tokens()), expected.logits)
    assert torch.equal(unhooked(tokens(), return_type="loss"), expected.loss)
    assert unhooked(tokens(), stop_at_layer=1).shape == (2, 7, 32)
    assert unhooked.W_Q.shape == (2, 4, 32, 8)
    unhooked.reset_hooks()
    assert unhooked.generate(tokens(), max_new_tokens=1, verbose=False, stop_at_eos=False).shape == (2, 8)


def test_a_new_drop_in_on_the_same_model_is_hooked_again(unhooked: HookedTransformer) -> None:
    again = HookedTransformer(unhooked.hf_model)
    _, cache = again.run_with_cache(tokens())
    assert "blocks.0.hook_resid_pre" in cache
    with pytest.raises(NotInstrumentedError, match="removed"):
        unhooked.run_with_cache(tokens())
