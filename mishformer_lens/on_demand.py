"""Activations that HuggingFace does not compute by itself. They are computed while somebody's hook is on them.

Patched code calls these objects; each does exactly what the release's own code did as long as its hooks are idle.
"""

import functools
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import einops
import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_mask

from mishformer_lens.errors import EagerFallbackWarning
from mishformer_lens.hooks import HookGroup, HookPoint


class HookedLayerNorm(nn.LayerNorm):
    """What is mixed into a live ``nn.LayerNorm`` to give it ``hook_scale`` and ``hook_normalized``.

    ``hook_scale`` ``[..., 1]`` is the divisor ``sqrt(variance + eps)``; an edit of it acts on ``(x - mean) / scale``,
    before gain and bias. ``hook_normalized`` ``[..., d_model]`` is the output, after gain and bias, as in
    TransformerLens 2.x.
    """

    hook_scale: HookPoint
    hook_normalized: HookPoint

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name for it
        output = super().forward(input)
        # There are more layer norms than anything else: idle, they cost two looks at an attribute and no call.
        if self.hook_scale.listening and self.hook_scale.is_active():
            output = self._with_scale(input, output)
        return self.hook_normalized(output) if self.hook_normalized.listening else output

    def _with_scale(self, activation: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        # TransformerLens, too, computes the scale in float32 at least.
        x = activation if activation.dtype == torch.float64 else activation.float()
        scale = self._scale(x)
        if not self.hook_scale.may_edit():
            self.hook_scale(scale)
            return output
        before = _state(scale)
        edited = self.hook_scale(scale)
        untouched = _is_untouched(edited, scale, before)
        if untouched and edited is scale:
            return output
        normalized = (x - x.mean(-1, keepdim=True)) / edited
        if self.weight is not None:
            normalized = normalized * self.weight
        if self.bias is not None:
            normalized = normalized + self.bias
        normalized = normalized.to(output.dtype)
        return _ValueWithGradient.apply(output, normalized) if untouched else normalized

    def _scale(self, x: torch.Tensor) -> torch.Tensor:
        # The kernel of the layer norm has it at hand, but no gradient for it; its definition takes six operations.
        scale: torch.Tensor = torch.native_layer_norm(x, self.normalized_shape, None, None, self.eps)[2].reciprocal()
        if not x.requires_grad:
            return scale
        centered = x - x.mean(-1, keepdim=True)
        by_definition = (centered.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return _ValueWithGradient.apply(scale, by_definition)  # type: ignore[no-any-return]


def _state(activation: torch.Tensor) -> int | torch.Tensor:
    """What :func:`_is_untouched` compares with: the version counter, or a copy in inference mode, which has none."""
    return activation.clone() if activation.is_inference() else activation._version


def _is_untouched(edited: torch.Tensor, original: torch.Tensor, before: int | torch.Tensor) -> bool:
    """Whether hooks left an activation as it was; ``before`` is the :func:`_state` of ``original`` before they ran."""
    if isinstance(before, torch.Tensor):
        return torch.equal(edited, before)
    if original._version != before:
        return False
    return edited is original or torch.equal(edited, original)


class _ValueWithGradient(torch.autograd.Function):
    """The value of one tensor, bit by bit, with the gradient of another that equals it but for rounding."""

    @staticmethod
    def forward(_ctx: Any, value: torch.Tensor, _path: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, gradient


class HeadResults:
    """``hook_result`` ``[batch, pos, head_index, d_model]``: what each head adds to the residual stream.

    The output bias is not part of it.
    """

    def __init__(self, hook_result: HookPoint, n_heads: int) -> None:
        self.hook_result = hook_result
        self.n_heads = n_heads

    def project(self, projection: nn.Module, z: torch.Tensor) -> torch.Tensor:
        """``projection(z)`` for ``z`` ``[batch, pos, head_index * d_head]``, by heads while ``hook_result`` is on."""
        if not (self.hook_result.listening and self.hook_result.is_active()):
            return projection(z)  # type: ignore[no-any-return]
        output: torch.Tensor = projection(z)
        # One head at a time through the module itself, so that adapters and quantized weights count.
        alone = torch.zeros(*z.shape[:-1], self.n_heads, z.shape[-1], dtype=z.dtype, device=z.device)
        heads = einops.rearrange(z, "batch pos (head d_head) -> batch pos head d_head", head=self.n_heads)
        places = einops.rearrange(
            alone, "batch pos head (part d_head) -> batch pos d_head head part", part=self.n_heads
        )
        torch.diagonal(places, dim1=-2, dim2=-1).copy_(heads.transpose(-1, -2))
        bias = projection(torch.zeros_like(z[:1, :1]))
        results: torch.Tensor = projection(alone) - bias.unsqueeze(-2)
        if not self.hook_result.may_edit():
            self.hook_result(results)
            return output
        before = _state(results)
        edited = self.hook_result(results)
        untouched = _is_untouched(edited, results, before)
        if untouched and edited is results:
            return output
        summed: torch.Tensor = edited.sum(-2) + bias
        return _ValueWithGradient.apply(output, summed) if untouched else summed


_pending = threading.local()


class AttentionInputs(HookGroup):
    """``hook_attn_in``, ``hook_q_input``, ``hook_k_input`` and ``hook_v_input``.

    They are copies of the residual stream before the layer norm, one per head: ``[batch, pos, head_index, d_model]``.
    The block and its attention share one of these: the block hands over the residual stream, the attention projects it.

    Args:
        layout: how the fused projection orders its outputs, as an einops axis: ``"part head d_head"`` or
            ``"head part d_head"``, where ``part`` is query, key, value.
    """

    def __init__(self, hooks: dict[str, HookPoint], n_heads: int, layout: str) -> None:
        self.hook_attn_in = hooks["hook_attn_in"]
        self.split = HookGroup(hooks["hook_q_input"], hooks["hook_k_input"], hooks["hook_v_input"])
        super().__init__(self.hook_attn_in, *self.split.hooks)
        self.n_heads = n_heads
        self.layout = layout

    def normalize(self, layer_norm: nn.Module, residual: torch.Tensor) -> torch.Tensor:
        """``layer_norm(residual)``; while active, normalise each head's copy and keep them for :meth:`project`."""
        if not (self.listening and self.is_active()):
            return layer_norm(residual)  # type: ignore[no-any-return]
        copies = einops.repeat(residual, "batch pos d_model -> batch pos head d_model", head=self.n_heads)
        copies = self.hook_attn_in(copies.clone())
        if self.split.is_active():
            _pending.inputs = [layer_norm(hook.copied(copies)) for hook in self.split.hooks]
        else:
            _pending.inputs = [layer_norm(copies)] * 3
        return residual

    def project(self, projection: nn.Module, normalized: torch.Tensor) -> torch.Tensor:
        """``projection(normalized)``; while active, from what :meth:`normalize` kept.

        Either way ``[batch, pos, 3 * head_index * d_head]``.
        """
        if not (self.listening and self.is_active()):
            return projection(normalized)  # type: ignore[no-any-return]
        inputs, _pending.inputs = _pending.inputs, None
        parts = [self._part(projection(each), part) for part, each in enumerate(inputs)]
        stacked = torch.stack(parts)
        return einops.rearrange(stacked, f"part batch pos head d_head -> batch pos ({self.layout})")

    def _part(self, projected: torch.Tensor, part: int) -> torch.Tensor:
        """Query, key or value ``[batch, pos, head_index, d_head]``, each head from its own input."""
        split = einops.rearrange(
            projected,
            f"batch pos input ({self.layout}) -> part batch pos input head d_head",
            part=3,
            head=self.n_heads,
        )[part]
        return torch.diagonal(split, dim1=2, dim2=3).movedim(-1, 2)


class AttentionScores(HookGroup):
    """``hook_attn_scores`` and ``hook_pattern`` under attention kernels that never hold the scores.

    While one of the two has a hook, its layer computes attention as HuggingFace's eager implementation does, with the
    mask that the layer was given, or the causal one that the kernel would have applied.
    """

    def __init__(self, hook_attn_scores: HookPoint, hook_pattern: HookPoint) -> None:
        super().__init__(hook_attn_scores, hook_pattern)
        self.hook_attn_scores = hook_attn_scores
        self.hook_pattern = hook_pattern

    def choose(
        self, interface: Callable[..., Any], eager: Callable[..., Any], masks_future: bool = False
    ) -> Callable[..., Any]:
        """The attention function to call: ``interface`` itself, or ``eager`` behind a conversion of the mask.

        Args:
            masks_future: whether ``eager`` has a causal mask of its own, so that it needs the padding mask alone.
        """
        if interface is eager or not (self.listening and self.is_active()):
            return interface
        self.warn()
        if masks_future:
            return functools.partial(_eager_with_padding_mask, eager)
        return functools.partial(_eager_with_dense_mask, eager)

    def choose_by_type(
        self, functions: Mapping[str, Callable[..., Any]], attention_type: str, eager: Callable[..., Any]
    ) -> Callable[..., Any]:
        """As :meth:`choose`, for attention functions that are called without the attention module."""
        if attention_type == "eager":
            return functools.partial(eager, attention_scores=self)
        if not (self.listening and self.is_active()):
            return functions[attention_type]
        self.warn()
        return functools.partial(_eager_without_module, functools.partial(eager, attention_scores=self), attention_type)

    def padding_mask(self, mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
        """The part of a kernel's mask that is about padding, additive, ``[batch, 1, 1, key_pos]``."""
        mask = self.four_axes(mask, dtype)
        # The last query may attend to everything that is not padding.
        return None if mask is None else mask[:, :, -1:, :]

    def four_axes(self, mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
        """A kernel's mask as an additive one with four axes: a padding mask ``[batch, key_pos]`` is expanded."""
        if mask is None or mask.dim() == 4:
            return mask
        return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min

    def warn(self) -> None:
        """Say that this layer leaves its fused kernel."""
        warnings.warn(
            "hook_attn_scores or hook_pattern has a hook: its layer computes attention eagerly while it is on, because "
            "the model's fused attention kernel holds no attention scores. Other layers keep their kernel.",
            EagerFallbackWarning,
            stacklevel=2,
        )


def _eager_with_padding_mask(
    eager: Callable[..., Any],
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> Any:
    padding = module.attention_scores.padding_mask(attention_mask, query.dtype)
    return eager(module, query, key, value, padding, **kwargs)


def _eager_with_dense_mask(
    eager: Callable[..., Any],
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> Any:
    mask = dense_mask(attention_mask, query, key, module.config._attn_implementation)
    return eager(module, query, key, value, mask, **kwargs)


def _eager_without_module(
    eager: Callable[..., Any],
    attention_type: str,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> Any:
    mask = dense_mask(attention_mask, query, key, attention_type)
    return eager(query, key, value, attention_mask=mask, **kwargs)


def dense_mask(mask: Any, query: torch.Tensor, key: torch.Tensor, attention_type: str) -> torch.Tensor | None:
    """The additive mask ``[batch or 1, 1, query_pos, key_pos]`` that eager attention needs for a kernel's mask.

    Args:
        mask: None for causal attention by the kernel's own means; a padding mask ``[batch, key_pos]``, 1 where there is
            a token; a mask with four axes, boolean (True where attention is allowed) or additive; or flex attention's
            block mask.
        query: ``[batch, head_index, query_pos, d_head]``.
        key: ``[batch, head_index, key_pos, d_head]``.
        attention_type: the implementation that the mask was made for.
    """
    queries, keys = query.shape[-2], key.shape[-2]
    if isinstance(mask, BlockMask):
        mask = create_mask(mask.mask_mod, query.shape[0], 1, queries, keys, device=str(query.device))
    elif mask is None or mask.dim() == 2:
        if mask is None and queries == 1:
            return None
        # torch's kernel aligns a causal mask at the upper left, flash attention at the lower right.
        offset = 0 if attention_type == "sdpa" else keys - queries
        causal = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(offset)[None, None]
        mask = causal if mask is None else causal & mask[:, None, None, :keys].bool()
    if mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, lowest)
    dense: torch.Tensor = mask[..., :keys]
    return dense
