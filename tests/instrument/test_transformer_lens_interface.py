"""A hook point has TransformerLens's interface, with and without TransformerLens."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mishformer_lens import HookPoint

ROOT = Path(__file__).parent.parent.parent


def run(code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_hooking_a_model_imports_no_transformer_lens_and_its_points_are_transformer_lenss_once_it_is_imported() -> None:
    run(
        "import sys, torch, transformers, mishformer_lens\n"
        "config = transformers.GPT2Config(n_layer=1, n_embd=4, n_head=1, vocab_size=5)\n"
        "hooked = mishformer_lens.instrument(transformers.GPT2LMHeadModel(config))\n"
        "point = hooked['blocks.0.attn.hook_z']\n"
        "point.add_hook(lambda z, hook: z * 2)\n"
        "with hooked.caching(): hooked.model(torch.tensor([[1]]))\n"
        "assert point.__class__ is type(point)\n"
        "assert 'transformer_lens' not in sys.modules\n"
        "from transformer_lens.hook_points import HookPoint\n"
        "assert isinstance(point, HookPoint) and issubclass(point.__class__, mishformer_lens.HookPoint)\n"
        "assert isinstance(point, mishformer_lens.HookPoint) and not isinstance(point, torch.nn.Linear)\n"
    )


def test_other_modules_are_not_transformer_lenss_hook_points() -> None:
    lens = pytest.importorskip("transformer_lens.hook_points")
    assert isinstance(HookPoint(), lens.HookPoint)
    assert not isinstance(nn.Identity(), lens.HookPoint)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda point: pickle.loads(pickle.dumps(point))])
def test_a_hook_point_of_no_model_is_copied_and_pickled(duplicate: Any) -> None:
    point = HookPoint()
    point.name, point.ctx["kept"] = "blocks.3.hook_mid", 5
    other = duplicate(point)
    assert type(other) is HookPoint
    assert (other.name, other.ctx, other.layer()) == ("blocks.3.hook_mid", {"kept": 5}, 3)


def test_hooks_run_in_their_order_and_the_hook_of_a_copy_is_given_the_copy() -> None:
    point = HookPoint()
    calls: list[tuple[str, HookPoint]] = []
    point.add_hook(lambda activation, hook: calls.append(("second", hook)))
    point.add_hook(lambda activation, hook: calls.append(("first", hook)), prepend=True)
    duplicate = copy.deepcopy(point)
    point(torch.ones(2))
    duplicate(torch.ones(2))
    assert [name for name, _ in calls] == ["first", "second", "first", "second"]
    assert [hook is duplicate for _, hook in calls] == [False, False, True, True]


@pytest.mark.parametrize("returned", ["tensor", "tuple"])
def test_a_backward_hook_may_return_the_gradient_or_a_tuple_of_it(returned: str) -> None:
    point = HookPoint()
    handle = point.add_hook(lambda g, hook: g * 3 if returned == "tensor" else (g * 3,), dir="bwd")
    value = torch.ones(2, requires_grad=True)
    point(value * 1).sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [3.0, 3.0]
    assert point.bwd_hooks == [handle]


def test_hooks_are_removed_by_direction_level_and_permanence() -> None:
    def nothing(activation: torch.Tensor, hook: Any) -> None: ...

    point = HookPoint()
    point.add_hook(nothing, level=1)
    point.add_hook(nothing, level=2)
    point.add_hook(nothing, dir="bwd")
    point.add_perma_hook(nothing)
    point.remove_hooks(level=1)
    assert [(handle.context_level, handle.is_permanent) for handle in point.fwd_hooks] == [(2, False), (None, True)]
    assert point.has_hooks("fwd", level=2)
    assert not point.has_hooks("fwd", including_permanent=False, level=1)
    point.remove_hooks("both")
    assert not point.has_hooks(including_permanent=False)
    assert point.is_active()
    point.remove_hooks(including_permanent=True)
    assert not point.has_hooks()
    assert not point.is_active()


def test_what_is_no_direction_and_a_layer_that_there_is_not_are_refused() -> None:
    point = HookPoint()
    wrong: Any = "up"
    for refused in (
        lambda: point.add_hook(print, dir=wrong),
        lambda: point.remove_hooks(wrong),
        lambda: point.has_hooks(wrong),
    ):
        with pytest.raises(ValueError, match="dir is"):
            refused()
    for name in (None, "hook_embed", "ln_final.hook_scale"):
        point.name = name
        with pytest.raises(ValueError, match="in no block"):
            point.layer()
    assert not point.is_active()
