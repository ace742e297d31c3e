"""Attach hooks for the length of a ``with`` block, record activations, compare outputs bit by bit."""

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from mishformer_lens.errors import EagerFallbackWarning
from tests.models import N_EXPERTS

Values = dict[str, list[torch.Tensor]]


@contextlib.contextmanager
def hooked(
    points: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]], direction: str = "fwd"
) -> Iterator[None]:
    """Attach one hook function each to the named hook points, and take them off at the end.

    Hooks on scores or patterns under a fused kernel warn; tests that are about that warning attach hooks themselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallbackWarning)
        try:
            for name, function in functions.items():
                points[name].add_hook(function, dir=direction)
            yield
        finally:
            for name in functions:
                points[name].remove_hooks(direction)


@contextlib.contextmanager
def recorded(points: Mapping[str, Any], names: Iterable[str], direction: str = "fwd") -> Iterator[Values]:
    """Record every activation (or gradient) that passes the named hook points, in the order in which they fire."""
    values: Values = defaultdict(list)

    def record(activation: torch.Tensor, hook: Any) -> None:
        values[hook.name].append(activation.detach().clone())

    with hooked(points, dict.fromkeys(names, record), direction):
        yield values


def noise_like(activation: torch.Tensor) -> torch.Tensor:
    """Fixed values between -0.5 and 0.5, the same for every tensor of that shape.

    For numbers of experts, what makes each of them the next one's.
    """
    if not activation.is_floating_point():
        return (activation + 1) % N_EXPERTS - activation
    steps = torch.arange(activation.numel(), dtype=torch.float64)
    return (0.5 * torch.sin(1.0 + 1.7 * steps)).reshape(activation.shape).to(activation)


def scaled(activation: torch.Tensor, factor: float) -> torch.Tensor:
    """An activation times a factor; numbers of experts are halved instead."""
    return activation * factor if activation.is_floating_point() else activation // 2


def scale_in_place(activation: torch.Tensor, factor: float) -> None:
    """As :func:`scaled`, in place."""
    activation.copy_(scaled(activation, factor))


def changed(before: Values, after: Values) -> set[str]:
    """The names whose activations are not bit-equal."""
    assert before.keys() == after.keys()
    return {
        name
        for name in before
        if len(before[name]) != len(after[name]) or not all(map(torch.equal, before[name], after[name]))
    }


def assert_same(actual: Any, expected: Any, where: str = "output") -> None:
    """Assert that two nested results have the same form and bit-equal tensors.

    Objects of other classes, such as key-value caches, are compared by their attributes.
    """
    assert type(actual) is type(expected), f"{where}: {type(actual)} is not {type(expected)}"
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype, where
        assert actual.shape == expected.shape, where
        # HuggingFace's own NaN, as some releases of GPT-NeoX give for a head mask, is to be the same NaN.
        same = (actual == expected) | (actual.isnan() & expected.isnan())
        difference = (actual.double() - expected.double()).abs()
        assert bool(same.all()), f"{where} differs by up to {difference.max()}"
    elif isinstance(expected, Mapping):
        assert list(actual) == list(expected), where
        for key in expected:
            assert_same(actual[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(expected, str | int | float | bool | type | torch.dtype | torch.device | None):
        assert actual == expected, where
    elif "Cache" in type(expected).__name__ or "Layer" in type(expected).__name__:
        assert_same(vars(actual), vars(expected), where)


def assert_close(found: torch.Tensor, expected: torch.Tensor, where: str, rtol: float, atol: float) -> None:
    """Assert that two tensors agree within tolerances, and say where they do not."""

    def message(text: str) -> str:
        return f"{where}: {text}"

    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, msg=message)


def count_tensors(result: Any) -> int:
    """How many tensors :func:`assert_same` would compare."""
    if isinstance(result, torch.Tensor):
        return 1
    if isinstance(result, Mapping):
        return sum(map(count_tensors, result.values()))
    if isinstance(result, list | tuple):
        return sum(map(count_tensors, result))
    if "Cache" in type(result).__name__ or "Layer" in type(result).__name__:
        return count_tensors(vars(result))
    return 0
