"""What the demo measures: that nothing changed, which heads are induction heads, and what one of them is good for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mishformer_lens import Instrumentation
from mishformer_lens.hooks import HookPoint

SEED = 0
BATCH = 4
LONGEST = 64
"""Random tokens in one half of a repeated sequence, where the model is long enough."""

Hook = Callable[[torch.Tensor, HookPoint], torch.Tensor | None]


@dataclasses.dataclass(frozen=True)
class Head:
    """One attention head.

    Attributes:
        score: its induction score, from 0 to 1: how much of its attention goes from a token's second occurrence to the
            token that followed the first one.
    """

    layer: int
    head: int
    score: float

    @property
    def name(self) -> str:
        """``layer.head``."""
        return f"{self.layer}.{self.head}"


def everything(model: nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """All that the model returns for ``tokens`` ``[batch, pos]``: logits, loss, hidden states, attentions; by name."""
    with torch.no_grad():
        output = model(tokens, labels=tokens, output_hidden_states=True, output_attentions=True)
    results = {"logits": output.logits, "loss": output.loss}
    for name in ("hidden_states", "attentions"):
        results |= {f"{name}[{index}]": tensor for index, tensor in enumerate(output[name] or ())}
    return results


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The names of results that differ in any bit, or are missing from one of the two."""
    names = [*one, *(name for name in other if name not in one)]
    return [name for name in names if name not in one or name not in other or not torch.equal(one[name], other[name])]


def shapes_of_hook_points(
    instrumented: Instrumentation, model: nn.Module, tokens: torch.Tensor
) -> dict[str, list[int]]:
    """The shape of the activation at every hook point, in the order in which they fire."""
    shapes: dict[str, list[int]] = {}

    def note(activation: torch.Tensor, hook: HookPoint) -> None:
        shapes[str(hook.name)] = list(activation.shape)

    # Some hook points change what others see while they are hooked, so each is asked alone.
    for name in instrumented.hook_points:
        _run(instrumented, model, tokens, {name: note})
    return shapes


def repeated_tokens(vocabulary: int, longest: int, bos_token: int | None = None) -> tuple[torch.Tensor, int]:
    """Random tokens ``[batch, pos]``, always the same ones, and after them the same again; and how many they are.

    Args:
        longest: the most positions that there may be.
        bos_token: what stands before all, if anything.
    """
    before = [] if bos_token is None else [bos_token]
    half = min(LONGEST, (longest - len(before)) // 2)
    generator = torch.Generator().manual_seed(SEED)
    first = torch.randint(vocabulary, (BATCH, half), generator=generator)
    return torch.cat([torch.tensor([before] * BATCH, dtype=torch.long), first, first], dim=1), half


def patterns(instrumented: Instrumentation, model: nn.Module, tokens: torch.Tensor) -> list[torch.Tensor]:
    """The attention pattern of every layer, ``[batch, head_index, query_pos, key_pos]`` each."""
    found: dict[str, torch.Tensor] = {}

    def keep(pattern: torch.Tensor, hook: HookPoint) -> None:
        found[str(hook.name)] = pattern.detach().clone()

    names = [name for name in instrumented.hook_points if name.endswith("attn.hook_pattern")]
    _run(instrumented, model, tokens, dict.fromkeys(names, keep))
    return [found[name] for name in names]


def induction_scores(layers: list[torch.Tensor], half: int) -> list[Head]:
    """The score of every head, from its pattern on :func:`repeated_tokens`; the head with the highest score first."""
    heads = []
    for layer, pattern in enumerate(layers):
        # A token of the second half looks back to the one after its first occurrence, half - 1 positions before it. The
        # diagonal's first entries belong to queries in the first half.
        diagonal = pattern.diagonal(offset=1 - half, dim1=-2, dim2=-1)
        scores = diagonal[..., -half:].float().mean(dim=(0, 2))
        heads += [Head(layer, head, score) for head, score in enumerate(scores.tolist())]
    return sorted(heads, key=lambda head: -head.score)


def loss(
    instrumented: Instrumentation, model: nn.Module, tokens: torch.Tensor, last: int, without: Head | None = None
) -> float:
    """The loss in nats a token on the ``last`` positions of ``tokens`` ``[batch, pos]``.

    Args:
        without: a head to leave out: its part of ``hook_z`` is set to zero.
    """
    hooks: dict[str, Hook] = {}
    if without is not None:
        hooks = {f"blocks.{without.layer}.attn.hook_z": _zeroing(without.head)}
    logits = _run(instrumented, model, tokens, hooks).logits
    predicted = logits[:, -last - 1 : -1].flatten(0, 1).float()
    return float(nn.functional.cross_entropy(predicted, tokens[:, -last:].flatten()))


def _zeroing(head: int) -> Hook:
    def zero(z: torch.Tensor, hook: HookPoint) -> torch.Tensor:  # noqa: ARG001 - hooks are called with it
        return z.index_fill(2, torch.tensor(head, device=z.device), 0.0)

    return zero


def _run(instrumented: Instrumentation, model: nn.Module, tokens: torch.Tensor, hooks: dict[str, Any]) -> Any:
    points = [instrumented[name] for name in hooks]
    for point, function in zip(points, hooks.values(), strict=True):
        point.add_hook(function)
    try:
        with torch.no_grad():
            return model(tokens)
    finally:
        for point in points:
            point.remove_hooks()
