"""Hooks that edit in place, with gradients on: the gradient is that of the same edit made out of place."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.contract import contract, unflagged
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_close, assert_same, hooked


def first_entries(activation: torch.Tensor) -> tuple[Any, ...]:
    """An index for the first entries along the third axis: a head of those that have heads."""
    return (slice(None), slice(None), slice(0, 1))


def scaled_in_place(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    activation[first_entries(activation)] *= 0.5
    return activation


def scaled_in_place_and_nothing_returned(activation: torch.Tensor, hook: Any) -> None:
    scaled_in_place(activation, hook)


def scaled(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    factor = torch.ones_like(activation)
    factor[first_entries(activation)] = 0.5
    return activation * factor


def zeroed_in_place(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    activation[:, :, 0] = 0
    return activation


def zeroed(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    kept = torch.ones_like(activation)
    kept[:, :, 0] = 0
    return activation * kept


def run(model: Any, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits, and the gradients of all parameters and of the input."""
    model.zero_grad()
    source = embeddings.clone().requires_grad_()
    output = model(inputs_embeds=source, labels=make_tokens())
    output.loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": output.logits.detach(), "source": source.grad, **gradients}


def compare(model: Any, name: str, in_place: Any, out_of_place: Any, points: Any) -> None:
    embeddings = model.get_input_embeddings()(make_tokens()).detach()
    with hooked(points, {name: out_of_place}):
        expected = run(model, embeddings)
    before = embeddings.clone()
    with hooked(points, {name: in_place}):
        found = run(model, embeddings)
    assert torch.equal(embeddings, before)
    assert found.keys() == expected.keys()
    for each, value in expected.items():
        assert_close(found[each], value, f"{name}: {each}", rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("in_place", [scaled_in_place, scaled_in_place_and_nothing_returned])
def test_an_edit_in_place_has_the_gradient_of_the_edit_out_of_place(float32_case: Case, in_place: Any) -> None:
    model = make_model(float32_case)
    points = mishformer_lens.instrument(model).hook_points
    for name in contract(float32_case.kind):
        compare(model, name, in_place, scaled, points)


def test_a_head_can_be_zeroed_in_place(float32_case: Case) -> None:
    model = make_model(float32_case)
    points = mishformer_lens.instrument(model).hook_points
    parts = ("hook_q", "hook_k", "hook_v", "hook_z", "hook_result", "hook_rot_q", "hook_rot_k", "hook_pattern")
    for name in contract(float32_case.kind):
        if name.endswith(parts):
            compare(model, name, zeroed_in_place, zeroed, points)


def test_in_place_beside_a_backward_hook(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    for name in unflagged(kind):
        gradients: list[torch.Tensor] = []

        def keep(gradient: torch.Tensor, hook: Any, gradients: Any = gradients) -> None:
            gradients.append(gradient.clone())

        with hooked(points, {name: keep}, "bwd"):
            compare(model, name, scaled_in_place, scaled, points)
        one, other = gradients
        assert_close(one, other, name, rtol=1e-4, atol=1e-6)


def test_every_hook_point_is_edited_in_place_at_once(float32_case: Case) -> None:
    model = make_model(float32_case)
    points = mishformer_lens.instrument(model).hook_points
    embeddings = model.get_input_embeddings()(make_tokens()).detach()
    names = list(contract(float32_case.kind))
    with hooked(points, dict.fromkeys(names, scaled)):
        expected = run(model, embeddings)
    with hooked(points, dict.fromkeys(names, scaled_in_place)):
        found = run(model, embeddings)
    for each, value in expected.items():
        assert_close(found[each], value, each, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gradients", [True, False])
def test_what_an_edit_in_place_was_made_of_stays(kind: str, gradients: bool) -> None:
    """Neither the model's own input nor what an observer keeps of an earlier hook point is written into."""
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    given = model.get_input_embeddings()(make_tokens()).detach()
    before = given.clone()
    with torch.set_grad_enabled(gradients):
        with instrumentation.caching(["blocks.0.hook_resid_post"]) as expected:
            model(inputs_embeds=given)
        edited = hooked(instrumentation.hook_points, {"blocks.1.hook_resid_pre": zeroed_in_place})
        with edited, instrumentation.caching(["blocks.0.hook_resid_post"]) as found:
            model(inputs_embeds=given)
        for name in ("hook_embed", "blocks.0.hook_resid_pre"):
            with hooked(instrumentation.hook_points, {name: zeroed_in_place}):
                model(inputs_embeds=given)
    assert_same(found, expected)
    assert_same(given, before)


def test_observers_alone_copy_nothing(kind: str) -> None:
    """What an observer gets of an activation that the model computes is the model's own tensor."""
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    after = "blocks.0.mlp.hook_post"
    seen: list[torch.Tensor] = []
    name = "h" if kind == "gpt2" else "layers"
    act = getattr(model.base_model, name)[0].mlp.act
    handle = act.register_forward_hook(lambda module, arguments, output: seen.append(output))
    with instrumentation.caching([after]) as cache, torch.no_grad():
        model(make_tokens())
    handle.remove()
    assert cache[after] is seen[0]
