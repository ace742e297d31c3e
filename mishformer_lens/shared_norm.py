"""One norm before attention and MLP, of which TransformerLens makes two: ``ln1`` for the one, ``ln2`` for the other."""

from collections.abc import Mapping

import torch
from torch import nn

from mishformer_lens.hooks import HookGroup, HookPoint


class SharedNorm(HookGroup):
    """``hook_mlp_in`` and ``ln2.*`` of a block whose MLP reads what its attention reads.

    Args:
        hook_mlp_in: the residual stream's copy that the MLP reads.
        of_attention: the hook points whose edits reach attention alone: ``ln1.*`` and those of its inputs.
        of_mlp: what the norm carries for the MLP, by name: the hook points ``ln2.*``, and helpers of its patched code.
    """

    def __init__(
        self, hook_mlp_in: HookPoint, of_attention: tuple[HookPoint, ...], of_mlp: Mapping[str, object]
    ) -> None:
        self.hook_mlp_in = hook_mlp_in
        self.of_mlp = of_mlp
        own = tuple(each for each in of_mlp.values() if isinstance(each, HookPoint))
        self.norm_hooks = HookGroup(*own)
        super().__init__(hook_mlp_in, *own, *of_attention)

    def for_mlp(self, norm: nn.Module, residual: torch.Tensor, normalized: torch.Tensor) -> torch.Tensor:
        """What the MLP gets of ``norm``: ``normalized``, the very tensor, until a hook may edit this side or the other.

        Args:
            residual: what ``norm`` got.
            normalized: what came of it, with what hooks made of it for attention.
        """
        # Where hooks were taken off in this pass: the inputs of attention are normalised elsewhere.
        not_normalized = normalized is residual
        if not (not_normalized or (self.listening and self.is_active())):
            return normalized
        if not_normalized or any(hook.may_edit() and hook.is_active() for hook in self.hooks):
            output: torch.Tensor = self._once_more(norm)(self.hook_mlp_in.copied(residual))
            return output
        self.hook_mlp_in(residual)
        if self.norm_hooks.is_active():
            # Not a call: whatever else is on the module sees it run once.
            self._once_more(norm).forward(residual)
        return normalized

    def _once_more(self, norm: nn.Module) -> nn.Module:
        """``norm`` itself but for what it carries of hook points."""
        twin: nn.Module = object.__new__(type(norm))
        vars(twin).update({**vars(norm), **self.of_mlp})
        # One on the instance is the lent class's own, bound to ``norm``.
        vars(twin).pop("forward", None)
        return twin
