"""Hook points around the call of an attention function: what goes into it, and what comes out."""

import functools
from collections.abc import Mapping
from typing import Any

import torch

from mishformer_lens.attention_scores import AttentionScores, Kernel
from mishformer_lens.hooks import HookGroup, HookPoint


class AttentionCall(HookGroup):
    """``hook_rot_q``, ``hook_rot_k`` and ``hook_z``, and the choice of the kernel that :class:`AttentionScores` makes.

    Where queries and keys are not rotated, ``hook_z`` alone.

    Args:
        hooks: the attention's hook points, by name.
    """

    def __init__(self, hooks: Mapping[str, HookPoint], scores: AttentionScores) -> None:
        names = "attn.hook_rot_q", "attn.hook_rot_k"
        self.rotated = tuple(hooks[name] for name in names if name in hooks)
        self.hook_z = hooks["attn.hook_z"]
        super().__init__(*self.rotated, self.hook_z, *scores.hooks)
        self.scores = scores

    def around(self, interface: Kernel, eager: Kernel) -> Kernel:
        """``interface`` itself, or with hooks around it.

        It gets queries ``[batch, head_index, pos, d_head]`` and keys and values with a head each of their own, and
        gives ``[batch, pos, head_index, d_head]``.

        Raises:
            AttentionKernelError: see :meth:`AttentionScores.choose`.
        """
        return functools.partial(self._call, interface, eager) if self.listening else interface

    def around_own(self, function: Kernel) -> Kernel:
        """As :meth:`around`, for a function of the family's own module, patched itself, that gets the attention."""
        return self.around(function, function)

    def _call(
        self,
        interface: Kernel,
        eager: Kernel,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        *arguments: Any,
        **others: Any,
    ) -> tuple[torch.Tensor, Any]:
        if self.rotated:
            hook_rot_q, hook_rot_k = self.rotated
            # In layers without rotary embedding, queries are the very tensor that observers of hook_q keep.
            query = hook_rot_q.heads_first(query, copy=hook_rot_q.may_edit())
            key = hook_rot_k.heads_first(key, copy=True)
        output, weights = self.scores.choose(interface, eager)(module, query, key, *arguments, **others)
        return self.hook_z(output), weights

    def around_flash(self, kernel: Kernel, rotated: bool = False) -> Kernel:
        """As :meth:`around`, for transformers' ``_flash_attention_forward``, which gets heads after positions.

        Args:
            rotated: whether the hooks on rotated queries and keys were called before.
        """
        return functools.partial(self._call_flash, kernel, rotated) if self.listening else kernel

    def _call_flash(
        self, kernel: Kernel, rotated: bool, query: torch.Tensor, key: torch.Tensor, *arguments: Any, **others: Any
    ) -> torch.Tensor:
        if self.rotated and not rotated:
            hook_rot_q, hook_rot_k = self.rotated
            query = hook_rot_q(query)
            key = hook_rot_k.heads_first(key.transpose(1, 2), copy=True).transpose(1, 2)
        return self.hook_z(self.scores.flash(kernel)(query, key, *arguments, **others))
