"""`Instrumentation.caching()` and `observing()`: what hooks would see, at no change of anything."""

from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning, UnknownHookError
from tests.conformance.contract import contract, flagged, unflagged
from tests.conformance.scenarios import gradients
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, hooked, recorded

# Under a fused kernel, a cache of scores and patterns warns.
pytestmark = pytest.mark.filterwarnings(f"ignore::{EagerFallbackWarning.__module__}.{EagerFallbackWarning.__name__}")


def test_a_cache_holds_what_hooks_see_in_the_order_in_which_they_fire(case: Case) -> None:
    model = make_model(case)
    instrumentation = mishformer_lens.instrument(model)
    with recorded(instrumentation.hook_points, unflagged(case.kind)) as values:
        model(make_tokens())
    with instrumentation.caching() as cache:
        model(make_tokens())
    assert list(cache) == unflagged(case.kind)
    # Hooks recorded copies: nothing may write to an activation after it was cached.
    assert_same(cache, {name: value for name, (value,) in values.items()})
    assert not any(value.requires_grad for value in cache.values())


def test_flagged_activations_are_cached_by_name(float32_case: Case) -> None:
    plain, model = make_model(float32_case), make_model(float32_case)
    instrumentation = mishformer_lens.instrument(model)
    for name in flagged(float32_case.kind):
        with recorded(instrumentation.hook_points, [name]) as values:
            model(make_tokens())
        with instrumentation.caching([name]) as cache:
            assert_same(model(make_tokens()), plain(make_tokens()), name)
        assert_same(cache, {name: values[name][0]})


def test_a_cache_holds_what_hooks_made_of_the_activation(case: Case) -> None:
    model = make_model(case)
    instrumentation = mishformer_lens.instrument(model)
    for name in contract(case.kind):
        edit = {name: lambda activation, hook: activation * 0.5}
        points = instrumentation.hook_points
        with recorded(points, [name]) as before, hooked(points, edit), instrumentation.caching([name]) as cache:
            model(make_tokens())
        assert torch.equal(cache[name], before[name][-1] * 0.5), name


def test_gradients_while_everything_is_cached(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching([*contract(kind)]) as cache:
        found = gradients(model)
    # Each head's own layer norm and projection are other operations than HuggingFace's: no flagged input is exact here.
    for name, value in gradients(make_model(Case(kind))).items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    with instrumentation.caching() as cache:
        assert_same(gradients(model), gradients(make_model(Case(kind))))
    assert list(cache) == unflagged(kind)


def test_the_last_pass_is_kept_and_nothing_after_the_context(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    name = "blocks.1.hook_resid_post"
    with instrumentation.caching([name]) as outer:
        with instrumentation.caching([name]) as inner:
            model(make_tokens())
        model(make_tokens(pos=2))
    model(make_tokens(pos=1))
    assert inner[name].shape[1] == make_tokens().shape[1]
    assert outer[name].shape[1] == 2
    assert not any(point.is_active() for point in instrumentation.hook_points.values())


def test_observers_cannot_replace_and_are_taken_off_after_an_error(kind: str) -> None:
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    seen: list[Any] = []

    def observe(activation: torch.Tensor, hook_point: mishformer_lens.HookPoint) -> torch.Tensor:
        seen.append(hook_point.name)
        return activation * 2

    with instrumentation.observing({"blocks.0.mlp.hook_post": observe}):
        assert_same(model(make_tokens()), plain(make_tokens()))
    assert seen == ["blocks.0.mlp.hook_post"]

    def fail(activation: torch.Tensor, hook_point: mishformer_lens.HookPoint) -> None:
        raise RuntimeError("an observer failed")

    with pytest.raises(RuntimeError, match="observer failed"), instrumentation.observing({"ln_final.hook_scale": fail}):
        model(make_tokens())
    assert_same(model(make_tokens()), plain(make_tokens()))


def test_an_unknown_name_is_refused_before_anything_is_attached(kind: str) -> None:
    instrumentation = mishformer_lens.instrument(make_model(Case(kind)))
    names = ["blocks.0.attn.hook_z", "blocks.0.attn.hook_zz"]
    with pytest.raises(UnknownHookError, match=r"Did you mean .*hook_z"), instrumentation.caching(names):
        pytest.fail("the context was entered")
    assert not any(point.is_active() for point in instrumentation.hook_points.values())
