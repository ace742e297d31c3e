"""Backward hooks fire once each, with the gradient that autograd has for that activation; and they can change it."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.contract import contract, flagged, shape, unflagged
from tests.models import Case, make_model, make_tokens
from tests.recording import Values, assert_close, hooked, recorded


def backward(model: Any) -> None:
    tokens = make_tokens()
    model(tokens, labels=tokens).loss.backward()


def injected(model: Any, points: Any, names: list[str]) -> dict[str, torch.Tensor]:
    """Autograd's gradients: those of zeros that are added to the activations."""
    zeros: dict[str, torch.Tensor] = {}

    def add(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        zeros[hook.name] = torch.zeros_like(activation, requires_grad=True)
        return activation + zeros[hook.name]

    with hooked(points, dict.fromkeys(names, add)):
        backward(model)
    gradients = {name: zero.grad for name, zero in zeros.items()}
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def assert_gradients(found: Values, expected: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    for name, gradient in expected.items():
        size = max(float(gradient.abs().max()), 1e-4)
        tolerance = 1e-4 if dtype == torch.float32 else 5e-2
        assert_close(found[name][0], gradient, name, rtol=tolerance, atol=tolerance * size)


def test_every_backward_hook_fires_once_with_autograd_s_gradient(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    names = unflagged(case.kind)
    with recorded(points, names, "bwd") as gradients:
        backward(model)
    assert {name: len(each) for name, each in gradients.items()} == dict.fromkeys(names, 1)
    assert all(tuple(gradients[name][0].shape) == shape(case.kind, name) for name in names)
    expected = injected(model, points, names)
    assert expected.keys() == set(names)
    assert_gradients(gradients, expected, case.dtype)
    # Nothing of the above holds by being zero.
    assert all(float(gradient.abs().max()) > 0 for gradient in expected.values())


def test_flagged_hook_points_have_gradients_too(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    for name in flagged(case.kind):
        with recorded(points, [name], "bwd") as gradients:
            backward(model)
        assert [tuple(each.shape) for each in gradients[name]] == [shape(case.kind, name)]
        assert_gradients(gradients, injected(model, points, [name]), case.dtype)


def test_backward_hooks_fire_in_the_reverse_order(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    fired: list[str] = []
    stream = [
        name
        for name in contract(kind)
        if name.endswith(("hook_resid_pre", "hook_resid_post", "ln_final.hook_normalized"))
    ]
    with hooked(points, dict.fromkeys(stream, lambda gradient, hook: fired.append(hook.name)), "bwd"):
        backward(model)
    assert fired == stream[::-1]


@pytest.mark.parametrize(
    "name", ["blocks.1.hook_resid_pre", "blocks.0.attn.hook_v", "blocks.1.attn.hook_pattern", "blocks.0.ln2.hook_scale"]
)
def test_a_backward_hook_can_change_the_gradient(kind: str, name: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    with hooked(points, {name: lambda gradient, hook: (torch.zeros_like(gradient),)}, "bwd"):
        backward(model)
    stopped = {each: parameter.grad for each, parameter in model.named_parameters()}
    model.zero_grad()
    with hooked(points, {name: lambda activation, hook: activation.detach()}):
        backward(model)
    for each, parameter in model.named_parameters():
        if parameter.grad is None:
            assert stopped[each] is None or not bool(stopped[each].any()), each
        else:
            found = stopped[each]
            assert found is not None
            assert_close(found, parameter.grad, each, rtol=1e-4, atol=1e-6)


def test_forward_and_backward_hooks_on_one_point(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    name = "blocks.0.hook_mlp_out"
    with (
        recorded(points, [name], "bwd") as gradients,
        recorded(points, [name]) as activations,
        hooked(points, {name: lambda activation, hook: activation * 2}),
    ):
        backward(model)
    assert len(gradients[name]) == len(activations[name]) == 1
