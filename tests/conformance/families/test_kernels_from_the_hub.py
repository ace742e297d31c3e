"""Norms whose forward a kernel from the hub took the place of: their hooks are refused, never passed by.

`kernels.kernelize` binds another function to each norm as its `forward`; older releases of it, and others who do the
same, set one on the class.
"""

import types
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import ReplacedCodeError
from mishformer_lens.patchers import FAMILIES
from tests.conformance.families.conftest import here
from tests.kinds import kinds
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same

KINDS = [kind for kind in ("llama", "gemma", "gemma2", "olmo2", "cohere") if kind in here()]
HOOKS = ("hook_scale", "hook_normalized")


def kernel(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Stands for a compiled norm: it computes all by itself."""
    x = hidden_states.float()
    output: torch.Tensor = self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
    return output.to(hidden_states.dtype)


def norm(model: Any, kind: str, part: str) -> Any:
    family = FAMILIES[kinds()[kind].family]
    base = model.get_submodule(model.base_model_prefix)
    return base.get_submodule(f"{family.components['blocks']}.1.{family.components[part]}")


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_that_was_there_before(kind: str, hook: str) -> None:
    model = make_model(Case(kind))
    replaced = norm(model, kind, "ln1")
    replaced.forward = types.MethodType(kernel, replaced)
    expected = model(make_tokens()).logits
    instrumentation = mishformer_lens.instrument(model)
    with pytest.raises(ReplacedCodeError, match=r"was replaced, on this one module, by .*kernel"):
        instrumentation[f"blocks.1.ln1.{hook}"].add_hook(lambda activation, hook: None)
    with instrumentation.caching([f"blocks.0.ln1.{hook}"]) as cache:
        assert_same(model(make_tokens()).logits, expected)
    assert len(cache) == 1


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_that_comes_while_hooks_are_on(kind: str, hook: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    replaced = norm(model, kind, "ln1")
    with instrumentation.caching([f"blocks.1.ln1.{hook}"]):
        replaced.forward = types.MethodType(kernel, replaced)
        with pytest.raises(ReplacedCodeError, match=r"was replaced, on this one module, by .*kernel"):
            model(make_tokens())
        del replaced.forward
        model(make_tokens())
    replaced.forward = types.MethodType(kernel, replaced)
    model(make_tokens())


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_on_the_class(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    monkeypatch.setattr(type(norm(model, kind, "ln1")), "forward", kernel)
    expected = model(make_tokens()).logits
    for hook in HOOKS:
        with pytest.raises(ReplacedCodeError, match=r"forward of .* was replaced by .*kernel"):
            instrumentation[f"blocks.1.ln1.{hook}"].add_hook(lambda activation, hook: None)
    with instrumentation.caching(["blocks.1.attn.hook_q"]) as cache:
        assert_same(model(make_tokens()).logits, expected)
    assert len(cache) == 1
