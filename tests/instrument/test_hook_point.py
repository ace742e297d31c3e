"""A hook point by itself: TransformerLens's, torch's own ways to attach to it, and what it holds."""

import types
from typing import Any

import pytest
import torch
from torch import nn

import mishformer_lens
from mishformer_lens import HookPoint
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same

ATTACH = {
    "before": lambda point, note: point.register_forward_pre_hook(lambda module, arguments: note()),
    "after": lambda point, note: point.register_forward_hook(lambda module, arguments, output: note()),
    "before, backwards": lambda point, note: point.register_full_backward_pre_hook(lambda module, gradient: note()),
    "after, backwards": lambda point, note: point.register_full_backward_hook(lambda module, gradient, _: note()),
}


@pytest.mark.parametrize("way", ATTACH)
def test_every_way_that_torch_has_to_attach_a_hook(way: str) -> None:
    plain, model = make_model(Case("gpt2")), make_model(Case("gpt2"))
    point = mishformer_lens.instrument(model)["blocks.0.mlp.hook_post"]
    calls: list[int] = []
    handle = ATTACH[way](point, lambda: calls.append(1))
    assert point.is_active()
    tokens = make_tokens()
    output, expected = model(tokens, labels=tokens), plain(tokens, labels=tokens)
    output.loss.backward()
    expected.loss.backward()
    assert len(calls) == 1
    assert_same(output, expected)
    for found, wanted in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found.grad, wanted.grad)
    handle.remove()
    assert not point.is_active()
    model(tokens, labels=tokens).loss.backward()
    assert len(calls) == 1


def test_modules_and_tensors_that_are_set_on_a_hook_point_are_registered_as_on_any_module() -> None:
    point = HookPoint()
    point.probe = nn.Linear(2, 2)
    point.direction = nn.Parameter(torch.ones(2))
    assert [name for name, _ in point.named_parameters()] == ["direction", "probe.weight", "probe.bias"]
    point.note = "plain"
    assert vars(point)["note"] == "plain"


def test_an_edit_of_the_scale_of_a_layer_norm_without_gain_or_bias() -> None:
    for arguments in ({"elementwise_affine": False}, {"bias": False}):
        model = make_model(Case("gpt2"))
        model.transformer.ln_f = nn.LayerNorm(32, **arguments)
        points = mishformer_lens.instrument(model).hook_points
        seen: dict[str, torch.Tensor] = {}

        def keep(activation: torch.Tensor, hook: Any, seen: dict[str, torch.Tensor] = seen) -> None:
            seen[hook.name] = activation.detach().clone()

        points["ln_final.hook_normalized"].add_hook(keep)
        model(make_tokens())
        before = seen["ln_final.hook_normalized"]
        points["ln_final.hook_scale"].add_hook(lambda activation, hook: activation * 2)
        model(make_tokens())
        torch.testing.assert_close(seen["ln_final.hook_normalized"], before / 2)


def test_bound_methods_that_are_no_patched_ones_stay_on_the_instance() -> None:
    model = make_model(Case("gpt2"))
    block = model.transformer.h[0]
    block.count = types.MethodType(lambda self: len(list(self.parameters())), block)
    kept = vars(block)["count"]
    with mishformer_lens.instrument(model):
        assert vars(block)["count"] is kept
    assert vars(block)["count"] is kept
