"""Hook points inside the experts of a mixture, and what it takes to see them.

Where all experts are one module, fused kernels may compute them. While somebody looks into one of them, their layer
computes them one after another instead: HuggingFace's own eager code.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mishformer_lens.errors import EagerFallbackWarning, HookShapeError
from mishformer_lens.hooks import HookGroup, HookPoint

if TYPE_CHECKING:
    from mishformer_lens.lending import Place


class ExpertHooks(HookGroup):
    """``mlp.experts.{e}.hook_gate``, ``hook_pre`` and ``hook_post`` of all experts of one block.

    Their activations have a row for each token that chose the expert: those whose first choice it is, in the order of
    the tokens, then those whose second choice it is, and so on. An expert that no token chose has no rows.

    Args:
        points: expert by expert its three hook points, in the order in which they fire.
        place: where the live experts stand, whose own code runs while nobody looks into them.
    """

    def __init__(self, points: Iterable[tuple[HookPoint, ...]], place: "Place") -> None:
        self.points = tuple(points)
        self.place = place
        super().__init__(*(point for each in self.points for point in each))

    def are_looked_into(self, implementation: str | None) -> bool:
        """Whether experts are to be computed one after another, for a hook that is inside one of them.

        Args:
            implementation: transformers' name of what computes them else.
        """
        looked_into = self.is_active()
        if looked_into and implementation not in (None, "eager"):
            self._warn(f"experts_implementation {implementation!r}")
        return looked_into

    def take_turns(self, anyway: bool) -> bool:
        """As :meth:`are_looked_into`, where the release itself decides whether they are computed so ``anyway``."""
        if anyway or not self.is_active():
            return anyway
        self._warn("this release of transformers")
        return True

    def _warn(self, who: str) -> None:
        warnings.warn(
            f"a hook is inside an expert: its layer computes its experts one after another while it is on, because "
            f"{who} computes them together. Other layers go on as they do.",
            EagerFallbackWarning,
            stacklevel=4,
        )

    def unseen(self, module: nn.Module) -> Callable[..., Any]:
        """The forward that the experts have while nobody looks into them."""
        original: Any = self.place.loan.lent.original
        return functools.partial(original.forward, module)

    def each(self, hit: Any, like: torch.Tensor, d_mlp: int) -> Any:
        """``hit``, the numbers of experts that have tokens; on the way, hook points of the others see no rows.

        Args:
            like: has the type and the device of activations.
            d_mlp: the width of an expert.
        """
        return self._each(hit, like.new_empty(0, d_mlp)) if self.is_active() else hit

    def _each(self, hit: Iterable[Any], nothing: torch.Tensor) -> Iterator[Any]:
        reached = 0
        for number in hit:
            self._pass_by(reached, int(number), nothing)
            reached = int(number) + 1
            yield number
        self._pass_by(reached, len(self.points), nothing)

    def _pass_by(self, first: int, end: int, nothing: torch.Tensor) -> None:
        for points in self.points[first:end]:
            for point in points:
                point(nothing)

    def alternating(self, expert: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        """``hook_gate`` and ``hook_pre``, for an expert whose projection gives them in turn ``[token, 2 * d_mlp]``."""
        gate, pre = activation[..., ::2], activation[..., 1::2]
        hooked = self.gate(expert, gate), self.pre(expert, pre)
        if hooked[0] is gate and hooked[1] is pre:
            return activation
        return torch.stack(hooked, -1).flatten(-2)

    def gate(self, expert: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        """``hook_gate`` of an expert ``[token, d_mlp]``: what the activation function gets."""
        return self._hooked(0, expert, activation)

    def pre(self, expert: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        """``hook_pre`` of an expert ``[token, d_mlp]``: what the gate multiplies."""
        return self._hooked(1, expert, activation)

    def post(self, expert: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        """``hook_post`` of an expert ``[token, d_mlp]``: what is projected back."""
        return self._hooked(2, expert, activation)

    def _hooked(self, hook: int, expert: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        hooked: torch.Tensor = self.points[int(expert)][hook](activation)
        return hooked


class Routing:
    """``hook_expert_indices``, which an edit may give the numbers of experts that there are; and weights of the chosen.

    Args:
        n_experts: how many there are.
    """

    def __init__(self, hook_expert_weights: HookPoint, hook_expert_indices: HookPoint, n_experts: int) -> None:
        self.hook_expert_weights = hook_expert_weights
        self.hook_expert_indices = hook_expert_indices
        self.n_experts = n_experts

    def weighed(self, weights: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both as hooks leave them, where ``hook_expert_weights`` comes after the choice.

        It shows the weights ``[batch * pos, expert]`` of all experts, zero for those that were not chosen. So an expert
        that an edit of the indices chooses has no weight but that which an edit of the weights gives it.

        Args:
            weights: of the chosen ones alone ``[batch * pos, choice]``.

        Raises:
            HookShapeError: see :meth:`chosen`.
        """
        if not (self.hook_expert_weights.is_active() or self.hook_expert_indices.is_active()):
            return weights, indices
        of_all = weights.new_zeros(len(weights), self.n_experts).scatter(1, indices, weights)
        edited = self.hook_expert_weights.changed(of_all) if self.hook_expert_weights.is_active() else None
        chosen = self.chosen(indices)
        if edited is None and chosen is indices:
            return weights, indices
        return (of_all if edited is None else edited).gather(1, chosen), chosen

    def chosen(self, indices: torch.Tensor) -> torch.Tensor:
        """``indices`` ``[batch * pos, choice]`` of the experts that each token goes to, as hooks leave them.

        The weights stay those of the experts that were chosen before.

        Raises:
            HookShapeError: a hook returned something else than numbers of experts.
        """
        may_be_edited = self.hook_expert_indices.may_edit() and self.hook_expert_indices.is_active()
        edited: torch.Tensor = self.hook_expert_indices(indices)
        if not may_be_edited:
            return edited
        if edited.dtype != indices.dtype:
            found = f"numbers of {edited.dtype}, where they are of {indices.dtype}"
        elif not torch.compiler.is_compiling() and bool(((edited < 0) | (edited >= self.n_experts)).any()):
            found = f"numbers from {int(edited.min())} to {int(edited.max())}"
        else:
            return edited
        raise HookShapeError(
            f"a hook on {self.hook_expert_indices.name} chose experts by {found}. Return the numbers of experts, of "
            f"{indices.dtype} and from 0 to {self.n_experts - 1}, or None to leave them as they are."
        )


def number_of_experts(mlp: nn.Module | None) -> int:
    """How many experts a block's live MLP or mixture has."""
    experts = None if mlp is None else mlp._modules.get("experts")
    if isinstance(experts, nn.ModuleList):
        return len(experts)
    # What is no such module of the family's own is refused.
    return 0 if experts is None else int(vars(experts).get("num_experts", 0))
