"""Hook points in norms: the scale that a norm divides by, and what comes out of it."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad

from mishformer_lens.hooks import HookPoint, laid_out_like

_PRECISE = (torch.float32, torch.float64)


class HookedLayerNorm(nn.LayerNorm):
    """What is mixed into a live ``nn.LayerNorm`` to give it ``hook_scale`` and ``hook_normalized``.

    ``hook_scale`` ``[..., 1]`` is the divisor ``sqrt(variance + eps)``; an edit of it acts on ``(x - mean) / scale``,
    before gain and bias. ``hook_normalized`` ``[..., d_model]`` is the output, after gain and bias, as in
    TransformerLens 2.x. With ``heads_first`` the norm gets ``[batch, head_index, pos, d_head]``; hooks see it with the
    positions first.
    """

    hook_scale: HookPoint
    hook_normalized: HookPoint
    heads_first = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name for it
        inherited: Any = super().forward
        hook_scale, hook_normalized, heads_first = self.hook_scale, self.hook_normalized, self.heads_first
        if hook_scale.is_active():
            # A module looks for its parameters where it has looked for everything else.
            norm = self.normalized_shape, self.weight, self.bias, self.eps
            inverse: torch.Tensor | None = None
            if inherited.__func__ is nn.LayerNorm.forward:
                # What torch's own forward comes to. The kernel has the scale at hand.
                output, _, inverse = torch.native_layer_norm(input, *norm)
            else:
                output = inherited(input)
            output = _with_scale(hook_scale, input, output, inverse, *norm, heads_first)
        else:
            output = inherited(input)
        if hook_normalized.listening:
            output = hook_normalized.heads_first(output) if heads_first else hook_normalized(output)
        return output


def _with_scale(
    hook_scale: HookPoint,
    activation: torch.Tensor,
    output: torch.Tensor,
    inverse: torch.Tensor | None,
    shape: tuple[int, ...],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    heads_first: bool = False,
) -> torch.Tensor:
    """``output`` of a layer norm, as the hooks on the scale leave it: bit by bit the same where they leave the scale.

    Args:
        inverse: one by the scale, if the kernel gave it.
    """
    # TransformerLens, too, computes the scale in float32 at least.
    x = activation if activation.dtype in _PRECISE else activation.float()
    if inverse is None or inverse.dtype not in _PRECISE:
        inverse = torch.native_layer_norm(x, shape, None, None, eps)[2]
    scale = inverse.reciprocal()
    if _may_be_differentiated():
        # The kernel has no gradient for it.
        variance = torch.var(x, -1, correction=0, keepdim=True)
        scale = _value_with_gradient(scale, (variance + eps).sqrt())
    edited = _edited(hook_scale, scale, heads_first)
    if edited is None:
        return output
    normalized = (x - x.mean(-1, keepdim=True)) / edited
    if weight is not None:
        normalized = normalized * weight
    if bias is not None:
        normalized = normalized + bias
    normalized = normalized.to(output.dtype)
    return laid_out_like(output, torch.where(edited == scale, _value_with_gradient(output, normalized), normalized))


def _edited(hook_scale: HookPoint, scale: torch.Tensor, heads_first: bool) -> torch.Tensor | None:
    """The scale as hooks leave it; see :meth:`HookPoint.changed`."""
    if not heads_first:
        return hook_scale.changed(scale)
    edited = hook_scale.changed(scale.transpose(1, 2))
    return None if edited is None else edited.transpose(1, 2)


def _may_be_differentiated() -> bool:
    return torch.is_grad_enabled() or forward_ad._current_level >= 0


def _value_with_gradient(value: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """The value of one tensor, bit by bit, with the derivatives of another that equals it but for rounding."""
    # Subtracting a positive zero changes no bit, not even that of a negative zero.
    return value.detach() - (path.detach() - path)


class NormHooks:
    """``hook_scale`` and ``hook_normalized`` of a norm whose own class is patched.

    Args:
        heads_first: whether the norm gets ``[batch, head_index, pos, d_head]``; hooks see it with the positions first.
    """

    def __init__(self, hook_scale: HookPoint, hook_normalized: HookPoint, heads_first: bool) -> None:
        self.hook_scale = hook_scale
        self.hook_normalized = hook_normalized
        self.heads_first = heads_first

    def divided(self, activation: torch.Tensor, squared_scale: torch.Tensor) -> torch.Tensor:
        """``activation * torch.rsqrt(squared_scale)``, with what hooks change of the scale ``[..., 1]``."""
        output = activation * torch.rsqrt(squared_scale)
        if not self.hook_scale.is_active():
            return output
        scale = squared_scale.sqrt()
        edited = _edited(self.hook_scale, scale, self.heads_first)
        if edited is None:
            return output
        # Bit by bit the same where hooks leave the scale.
        divided = activation / edited
        return laid_out_like(output, torch.where(edited == scale, _value_with_gradient(output, divided), divided))

    def layer_norm(
        self, activation: torch.Tensor, shape: tuple[int, ...], weight: None, bias: None, eps: float
    ) -> torch.Tensor:
        """torch's layer norm without weights, with what hooks change of the scale ``[..., 1]``."""
        if not self.hook_scale.is_active():
            return nn.functional.layer_norm(activation, shape, weight, bias, eps)
        # What torch's own function comes to. The kernel has the scale at hand.
        output, _, inverse = torch.native_layer_norm(activation, shape, weight, bias, eps)
        return _with_scale(self.hook_scale, activation, output, inverse, shape, weight, bias, eps)

    def normalized(self, activation: torch.Tensor) -> torch.Tensor:
        """``activation``, as hooks leave it."""
        if self.heads_first:
            return self.hook_normalized.heads_first(activation)
        return self.hook_normalized(activation)

    def of_each_head(
        self, join: Callable[..., torch.Tensor], norms: Iterable[nn.LayerNorm], activation: torch.Tensor
    ) -> Callable[..., torch.Tensor]:
        """``join``, with hooks on what comes of it, where each head of ``activation`` has one of ``norms`` to itself.

        Args:
            join: puts together what the norms give, as ``[batch, head_index, pos, d_head]``.
            norms: of equal epsilons, and without biases.
        """
        return functools.partial(self._joined, join, tuple(norms), activation)

    def _joined(
        self,
        join: Callable[..., torch.Tensor],
        norms: tuple[nn.LayerNorm, ...],
        activation: torch.Tensor,
        outputs: list[torch.Tensor],
        **arguments: Any,
    ) -> torch.Tensor:
        output = join(outputs, **arguments)
        if self.hook_scale.is_active():
            gains = torch.stack([norm.weight for norm in norms]).unsqueeze(1)
            norm = norms[0].normalized_shape, gains, None, norms[0].eps
            output = _with_scale(self.hook_scale, activation, output, None, *norm, heads_first=self.heads_first)
        return self.normalized(output)
