"""torch.func and forward-mode derivatives with every hook point looked at: what the plain model gives."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

import mishformer_lens
from tests.conformance.contract import contract
from tests.models import KINDS, Case, make_model, make_tokens
from tests.recording import assert_close, hooked, noise_like

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
Function = Callable[[torch.Tensor], torch.Tensor]
Transform = Callable[[Function, torch.Tensor], torch.Tensor]

pytestmark = [
    # All hook points are looked at here, also those for which a layer leaves its fused kernel.
    pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning"),
    # What torch says of its own transforms.
    pytest.mark.filterwarnings("ignore:.*`torch.jit.script.*` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented:UserWarning"),
]


def _square(function: Function) -> Function:
    return lambda x: function(x).square().mean()


def _forward_mode(function: Function, x: torch.Tensor) -> torch.Tensor:
    with forward_ad.dual_level():
        tangent: torch.Tensor = forward_ad.unpack_dual(function(forward_ad.make_dual(x, noise_like(x)))).tangent
    return tangent


@torch.no_grad()
def _forward_mode_without_gradients(function: Function, x: torch.Tensor) -> torch.Tensor:
    return _forward_mode(function, x)


def _one_by_one(function: Function) -> Function:
    return lambda x: vmap(lambda each: function(each[None])[0])(x)


FORWARD: dict[str, Transform] = {
    "jvp": lambda f, x: jvp(f, (x,), (noise_like(x),))[1],
    "jacfwd": lambda f, x: jacfwd(lambda part: f(torch.cat([part, x[:1, 1:]], 1))[0, -1, :3])(x[:1, :1]),
    "forward mode": _forward_mode,
    "forward mode without gradients": _forward_mode_without_gradients,
    "jvp of grad": lambda f, x: jvp(grad(_square(f)), (x,), (noise_like(x),))[1],
    "jvp of vmap": lambda f, x: jvp(_one_by_one(f), (x,), (noise_like(x),))[1],
    "second derivative": lambda f, x: torch.autograd.functional.hvp(_square(f), x, noise_like(x))[1],
}
REVERSE: dict[str, Transform] = {
    "grad": lambda f, x: grad(_square(f))(x),
    "vjp": lambda f, x: vjp(f, x)[1](noise_like(f(x)))[0],
    "jacrev": lambda f, x: jacrev(lambda part: f(part)[0, -1, :3])(x[:1]),
    "vmap": lambda f, x: _one_by_one(f)(x),
    "vmap of grad": lambda f, x: vmap(grad(_square(lambda each: f(each[None]))))(x),
    "grad of vmap": lambda f, x: grad(_square(_one_by_one(f)))(x),
}
# torch's sdpa for the CPU has no derivative in forward mode, with hook points or without.
RUNS = [
    pytest.param(Case(kind, attention, torch.float64), transform, id=f"{name}, {kind}, {attention}")
    for kind in KINDS
    for attention, transforms in (("eager", {**FORWARD, **REVERSE}), ("sdpa", REVERSE))
    for name, transform in transforms.items()
]


def from_embeddings(model: Any) -> Function:
    return lambda x: model(inputs_embeds=x, use_cache=False).logits


def embedded(model: Any) -> torch.Tensor:
    result: torch.Tensor = model.get_input_embeddings()(make_tokens()).detach()
    return result


@functools.cache
def _why_not(case: Case) -> str:
    """Why a release of transformers cannot run a plain model like this."""
    try:
        make_model(case)(make_tokens())
    except RuntimeError as error:
        return str(error)
    return ""


def in_float64(kind: str, attention: str = "eager") -> Case:
    """That case, or a skipped test where the release itself, without hooks, cannot run it."""
    case = Case(kind, attention, torch.float64)
    if _why_not(case):
        # GPT-NeoX of 4.44 fills its mask with the lowest float64 in float32.
        pytest.skip(f"this release runs no plain {kind} in float64: {_why_not(case)}")
    return case


@pytest.mark.parametrize(("case", "transform"), RUNS)
def test_every_hook_point_is_looked_at(case: Case, transform: Transform) -> None:
    in_float64(case.kind, case.attention)
    plain, model = make_model(case), make_model(case)
    instrumentation = mishformer_lens.instrument(model)
    expected = transform(from_embeddings(plain), embedded(plain))
    with instrumentation.caching(contract(case.kind)):
        assert_close(transform(from_embeddings(model), embedded(plain)), expected, "all", **CLOSE)


@pytest.mark.parametrize("hook", [lambda activation, hook: None, lambda activation, hook: activation.clone()])
@pytest.mark.parametrize(("case", "transform"), RUNS[:13])
def test_every_hook_point_has_a_hook_that_changes_nothing(case: Case, transform: Transform, hook: Any) -> None:
    in_float64(case.kind, case.attention)
    plain, model = make_model(case), make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    expected = transform(from_embeddings(plain), embedded(plain))
    with hooked(points, dict.fromkeys(contract(case.kind), hook)):
        assert_close(transform(from_embeddings(model), embedded(plain)), expected, "all", **CLOSE)


def test_parameters_of_several_models_at_once(kind: str) -> None:
    model = make_model(in_float64(kind))
    instrumentation = mishformer_lens.instrument(model)
    name, bias = next(each for each in model.named_parameters() if "mlp" in each[0] and each[0].endswith("bias"))
    stacked = torch.stack([bias.detach(), bias.detach() * 2])

    def run(bias: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = functional_call(model, {name: bias}, (make_tokens(),), {"use_cache": False}).logits
        return output

    expected = torch.stack([run(each) for each in stacked])
    with instrumentation.caching(contract(kind)):
        assert_close(vmap(run)(stacked), expected, name, **CLOSE)


@pytest.mark.parametrize("edit", ["out of place", "in place"])
@pytest.mark.parametrize("transform", ["jvp", "forward mode", "vmap", "grad", "vmap of grad", "jvp of vmap"])
def test_an_edited_scale_has_the_derivatives_of_its_definition(transform: str, edit: str) -> None:
    """The scale squared, against the layer norm written out."""
    model = make_model(Case("gpt2", dtype=torch.float64))
    points = mishformer_lens.instrument(model).hook_points
    norm = model.transformer.ln_f

    def definition(x: torch.Tensor) -> torch.Tensor:
        centered = x - x.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        return centered / (scale * scale) * norm.weight + norm.bias  # type: ignore[no-any-return]

    def squared(activation: torch.Tensor, hook: Any) -> torch.Tensor | None:
        if edit == "out of place":
            return activation * activation
        activation.mul_(activation.clone())
        return None

    x = noise_like(torch.empty(2, 3, 32, dtype=torch.float64)) * 3
    with hooked(points, {"ln_final.hook_scale": squared}):
        found = {**FORWARD, **REVERSE}[transform](norm, x)
    assert_close(found, {**FORWARD, **REVERSE}[transform](definition, x), transform, rtol=1e-8, atol=1e-8)


def test_an_edited_result_has_the_derivative_of_its_definition(kind: str) -> None:
    model = make_model(in_float64(kind))
    points = mishformer_lens.instrument(model).hook_points
    halves = []
    # To halve what a head adds is to halve what it reads.
    for name in ("blocks.0.attn.hook_result", "blocks.0.attn.hook_z"):

        def halve(activation: torch.Tensor, hook: Any) -> torch.Tensor:
            factor = torch.ones(activation.shape[2], 1, dtype=activation.dtype, device=activation.device)
            factor[1] = 0.5
            return activation * factor

        with hooked(points, {name: halve}):
            halves.append([transform(from_embeddings(model), embedded(model)) for transform in FORWARD.values()])
    for name, one, other in zip(FORWARD, *halves, strict=True):
        assert_close(one, other, name, rtol=1e-8, atol=1e-10)
