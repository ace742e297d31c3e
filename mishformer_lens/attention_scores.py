"""``hook_attn_scores`` and ``hook_pattern`` under attention kernels that never hold the scores.

While one of the two has a hook, its layer computes attention by plain operations: what its kernel would have computed
from the very arguments that the kernel was called with, whatever the configuration says.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_mask

from mishformer_lens.attention_masks import distance_between, packed, reach, triangle
from mishformer_lens.errors import AttentionKernelError, EagerFallbackWarning
from mishformer_lens.hooks import HookGroup, HookPoint

Kernel = Callable[..., Any]

# Arguments of transformers' attention functions that change what is attended to, and are not computed here.
_NOT_COMPUTED = (
    "block_table",
    "cu_seq_lens_k",  # but by like_flash
    "cu_seq_lens_q",
    "cu_seqlens_k",
    "cu_seqlens_q",
    "k_cache",
    "position_bias",
    "s_aux",
    "v_cache",
)


class AttentionScores(HookGroup):
    """Gives patched attention the kernel to call: its own, or plain operations while somebody looks at scores."""

    def __init__(self, hook_attn_scores: HookPoint, hook_pattern: HookPoint) -> None:
        super().__init__(hook_attn_scores, hook_pattern)
        self.hook_attn_scores = hook_attn_scores
        self.hook_pattern = hook_pattern

    def choose(self, interface: Kernel, eager: Kernel) -> Kernel:
        """For attention functions of all models: ``interface`` itself, or what stands in for it.

        Raises:
            AttentionKernelError: it is not known what ``interface`` computes.
        """
        if interface is eager or not self._wanted():
            return interface
        return functools.partial(_by_interface, self, interface)

    def choose_by_type(self, functions: Mapping[str, Kernel], attention_type: str, eager: Kernel) -> Kernel:
        """As :meth:`choose`, for attention functions of one module that are called without the attention."""
        if attention_type == "eager":
            return functools.partial(eager, attention_scores=self)
        if not self._wanted():
            return functions[attention_type]
        return functools.partial(_by_type, self, attention_type)

    def sdpa(self, kernel: Kernel) -> Kernel:
        """For torch's ``scaled_dot_product_attention``: ``kernel`` itself, or what stands in for it."""
        return self.like_sdpa if self._wanted() else kernel

    def flash(self, kernel: Kernel) -> Kernel:
        """For transformers' ``_flash_attention_forward``: ``kernel`` itself, or what stands in for it."""
        return self.like_flash if self._wanted() else kernel

    def flex(self, kernel: Kernel, mask: torch.Tensor | None, softcap: float | None) -> Kernel:
        """For torch's ``flex_attention``: ``kernel`` itself, or what stands in for it.

        Args:
            mask, softcap: what the kernel's ``score_mod`` does to scores.
        """
        return functools.partial(self._like_torch_s_flex, mask, softcap) if self._wanted() else kernel

    def _like_torch_s_flex(
        self,
        mask: torch.Tensor | None,
        softcap: float | None,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float | None,
        return_lse: bool,
        **_others: Any,
    ) -> Any:
        output = self.like_flex(query, key, value, mask, scale, softcap)
        # Transformers gives the sums of exponentials as weights; plain operations have no such numbers.
        return (output, None) if return_lse else output

    def _wanted(self) -> bool:
        if not (self.listening and self.is_active()):
            return False
        warnings.warn(
            "hook_attn_scores or hook_pattern has a hook: its layer computes attention eagerly while it is on, because "
            "the model's fused attention kernel holds no attention scores. Other layers keep their kernel.",
            EagerFallbackWarning,
            stacklevel=3,
        )
        return True

    def like_sdpa(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> torch.Tensor:
        """What ``torch.nn.functional.scaled_dot_product_attention`` gives: ``[batch, head_index, query_pos, d_head]``.

        Its causal mask is aligned at the upper left.
        """
        allowed = triangle(query, key, 0) if is_causal else None
        return self._attend(query, key, value, attn_mask, allowed, scale, dropout_p)

    def like_flash(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        query_length: int,
        is_causal: bool,
        dropout: float = 0.0,
        position_ids: torch.Tensor | None = None,
        softmax_scale: float | None = None,
        sliding_window: int | None = None,
        use_top_left_mask: bool = False,
        softcap: float | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        cu_seq_lens_k: torch.Tensor | None = None,
        max_length_q: int | None = None,
        max_length_k: int | None = None,
        **others: Any,
    ) -> torch.Tensor:
        """What transformers' ``_flash_attention_forward`` gives, on ``[batch, pos, head_index, d_head]``.

        Its causal mask is aligned at the lower right, and a padding mask ``[batch, key_pos]`` hides queries too.
        Without one, it cuts all rows, put one after another, into texts of the given lengths.

        Raises:
            AttentionKernelError: it is told something that is not computed here, as a text that lies in two rows.
        """
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        keys, allowed = key.shape[-2], None
        known = max_length_q is not None and max_length_k is not None
        if attention_mask is None and known and cu_seq_lens_q is not None and cu_seq_lens_k is not None:
            allowed, distance = packed(query, key, cu_seq_lens_q, cu_seq_lens_k, use_top_left_mask)
            position_ids = None  # the lengths count
        else:
            if attention_mask is None:
                others |= {"cu_seq_lens_q": cu_seq_lens_q, "cu_seq_lens_k": cu_seq_lens_k}
            distance = distance_between(query, key, 0 if use_top_left_mask else keys - query_length)
        _refuse(others)
        if is_causal and not (use_top_left_mask and query_length == 1):
            allowed = distance >= 0 if allowed is None else allowed & (distance >= 0)
        if sliding_window is not None and keys > sliding_window:
            near = distance.abs() <= reach(sliding_window)
            allowed = near if allowed is None else allowed & near
        if attention_mask is not None:
            real = attention_mask[:, None, None, -keys:].bool()
            visible = real & real[..., -query_length:].transpose(-1, -2)
            allowed = visible if allowed is None else allowed & visible
        elif position_ids is not None and query.shape[0] == 1 and query_length == keys:
            # Several texts in one row: each begins at position 0.
            text = (position_ids == 0).cumsum(-1)
            same = (text[:, None, :, None] == text[:, None, None, :]).expand(1, 1, keys, keys)
            allowed = same if allowed is None else allowed & same
        output = self._attend(query, key, value, None, allowed, softmax_scale, dropout, softcap)
        return output.transpose(1, 2).contiguous()

    def like_flex(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        scale: float | None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """What transformers' flex attention gives. Nothing is hidden but by ``mask``, and nothing is dropped."""
        if isinstance(mask, BlockMask):
            sizes = (query.shape[0], query.shape[1], query.shape[-2], key.shape[-2])
            mask = create_mask(mask.mask_mod, *sizes, device=str(query.device))
        return self._attend(query, key, value, mask, None, scale, 0.0, softcap)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        allowed: torch.Tensor | None,
        scale: float | None,
        dropout: float,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Attention ``[batch, head_index, query_pos, d_head]``; a query that may see nothing gets zeros.

        Args:
            key, value: with as many heads as ``query``, or fewer, each for several heads of queries one after another.
            mask: boolean, True where attention is allowed, or additive; cut to the keys that there are.
            allowed: boolean, on top of ``mask``.
        """
        if key.shape[1] != query.shape[1]:
            key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
        scores = torch.matmul(query, key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            mask = mask[..., : key.shape[-2]]
            if mask.dtype == torch.bool:
                allowed = mask if allowed is None else allowed & mask
            else:
                scores = scores + mask
        blind = None
        if allowed is not None:
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
            blind = ~allowed.any(-1, keepdim=True)
        elif mask is not None:
            blind = scores.isneginf().all(-1, keepdim=True)
        scores = self.hook_attn_scores(scores)
        pattern = torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        if blind is not None:
            pattern = pattern.masked_fill(blind, 0.0)
        pattern = torch.nn.functional.dropout(self.hook_pattern(pattern), dropout, training=dropout > 0)
        return torch.matmul(pattern, value)


def _by_interface(
    scores: AttentionScores,
    interface: Kernel,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    position_ids: torch.Tensor | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What an attention function of transformers would have given: ``[batch, pos, head_index, d_head]``.

    No weights come with it, as none come from a kernel.
    """
    name, function = str(module.config._attn_implementation), _function(interface)
    if name.startswith("flash_attention") or function.__module__ == "transformers.integrations.flash_attention":
        causal = module.is_causal if is_causal is None or not _reads_is_causal(function) else is_causal
        output = scores.like_flash(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attention_mask,
            query.shape[-2],
            causal,
            dropout,
            position_ids=position_ids,
            softmax_scale=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
            **others,
        )
        return output, None
    _refuse(others)
    if name == "sdpa" and _is_own(function):
        causal = is_causal
        if causal is None:
            causal = bool(module.is_causal) if _asks_module(function) else True
        causal = causal and attention_mask is None and query.shape[-2] > 1
        output = scores.like_sdpa(
            query, key, value, attention_mask, dropout, causal, scaling
        )  # which knows no soft cap
    elif name == "flex_attention" and _is_own(function):
        output = scores.like_flex(query, key, value, attention_mask, scaling, softcap)
    else:
        raise AttentionKernelError(
            f"hook_attn_scores or hook_pattern has a hook, and the attention function of {name!r} is "
            f"{function.__module__}.{function.__qualname__}. What it computes is not known, "
            "so nothing can stand in for it. Take the hook off, or choose attn_implementation='eager'."
        )
    return output.transpose(1, 2).contiguous(), None


def _by_type(
    scores: AttentionScores,
    attention_type: str,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    norm_factor: float,
    attention_dropout: float,
    training: bool,
    position_ids: torch.Tensor | None = None,
    **_others: Any,
) -> tuple[torch.Tensor, None]:
    """As :func:`_by_interface`, for GPT-NeoX's own attention functions."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    dropout = attention_dropout if training else 0.0
    if attention_type == "flash_attention_2":
        output = scores.like_flash(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attention_mask,
            query.shape[-2],
            True,
            dropout,
            position_ids=position_ids,
            softmax_scale=norm_factor,
        )
        return output, None
    if attention_type == "sdpa":
        causal = attention_mask is None and query.shape[-2] > 1
        output = scores.like_sdpa(query, key, value, attention_mask, dropout, causal)
    else:
        output = scores.like_flex(query, key, value, attention_mask, norm_factor)
    return output.transpose(1, 2).contiguous(), None


def _refuse(arguments: Mapping[str, Any]) -> None:
    given = sorted(name for name in _NOT_COMPUTED if arguments.get(name) is not None)
    if given:
        raise AttentionKernelError(
            f"hook_attn_scores or hook_pattern has a hook, and the attention kernel is called with {', '.join(given)}, "
            "which the computation by plain operations does not know. Take the hook off, or call the model without."
        )


def _function(interface: Any) -> Any:
    """The function inside of what binds arguments of it, as kernels from the hub are registered."""
    while isinstance(interface, functools.partial):
        interface = interface.func
    # A callable object is described by its class.
    return interface if hasattr(interface, "__qualname__") else type(interface)


def _is_own(function: Any) -> bool:
    """Whether an attention function is transformers' own, and nobody put another in its place."""
    return str(function.__module__).startswith("transformers.")


@functools.cache
def _reads_is_causal(interface: Any) -> bool:
    """Whether a flash attention function heeds its ``is_causal``: up to 4.55 transformers' throws it away."""
    return "is_causal" in interface.__code__.co_varnames


@functools.cache
def _asks_module(interface: Any) -> bool:
    """Whether transformers' sdpa function asks the module whether it is causal: up to 4.52 it does not."""
    return "is_causal" in interface.__code__.co_consts
