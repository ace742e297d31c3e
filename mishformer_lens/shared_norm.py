"""One norm before attention and MLP, of which TransformerLens makes two: ``ln1`` for the one, ``ln2`` for the other."""

import functools
import types
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

    def may_edit(self) -> bool:
        """Whether a hook is on that may edit what attention or the MLP gets.

        Blocks ask before attention: a hook may take itself off while it acts.
        """
        return self.listening and any(hook.may_edit() and hook.is_active() for hook in self.hooks)

    def for_mlp(
        self, norm: nn.Module, residual: torch.Tensor, normalized: torch.Tensor, may_edit: bool
    ) -> torch.Tensor:
        """What the MLP gets of ``norm``: ``normalized``, the very tensor, until a hook may edit this side or the other.

        Args:
            residual: what ``norm`` got.
            normalized: what came of it, with what hooks made of it for attention.
            may_edit: what :meth:`may_edit` said before ``norm`` ran.
        """
        # The inputs of attention are normalised elsewhere where ``normalized`` is ``residual``.
        if may_edit or normalized is residual or self.may_edit():
            output: torch.Tensor = self._once_more(norm)(self.hook_mlp_in.copied(residual))
            return output
        if self.listening and self.is_active():
            self.hook_mlp_in(residual)
            if self.norm_hooks.is_active():
                # Not a call: whatever else is on the module sees it run once.
                self._once_more(norm).forward(residual)
        return normalized

    def _once_more(self, norm: nn.Module) -> nn.Module:
        """``norm`` itself but for what it carries of hook points."""
        twin: nn.Module = object.__new__(type(norm))
        values = {name: _bound_anew(value, norm, twin) for name, value in vars(norm).items()}
        # A forward that is not bound to the module in a way that can be seen runs ``norm``, with its hook points.
        if values.get("forward") is vars(norm).get("forward"):
            values.pop("forward", None)
        vars(twin).update({**values, **self.of_mlp})
        return twin


def _bound_anew(value: object, old: nn.Module, new: nn.Module) -> object:
    """What is on the module ``old``, for ``new``: methods and accelerate's forward, which fetches weights, with it."""
    if isinstance(value, types.MethodType) and value.__self__ is old:
        return types.MethodType(value.__func__, new)
    if isinstance(value, functools.partial) and any(each is old for each in value.args):
        return functools.partial(value.func, *(new if each is old else each for each in value.args), **value.keywords)
    return value
