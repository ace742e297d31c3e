"""Attention computed from the weights, for inputs that HuggingFace's own modules do not take."""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mishformer_lens.errors import ForwardArgumentsError
from mishformer_lens.hooked_transformer.key_values import positions_of

if TYPE_CHECKING:
    from mishformer_lens.hooked_transformer.components import Attention


@dataclasses.dataclass(frozen=True)
class AttentionCall:
    """One call of a layer's attention, with TransformerLens's arguments. See :meth:`Attention.__call__`."""

    attention: "Attention"
    past: Any | None
    additive_mask: torch.Tensor | None  # [batch, 1, 1, key_pos]
    mask: torch.Tensor | None  # [batch, past + pos]
    position_bias: torch.Tensor | None

    def run(self, query_input: torch.Tensor, key_input: torch.Tensor, value_input: torch.Tensor) -> torch.Tensor:
        """What the attention writes to the residual stream, ``[batch, pos, d_model]``."""
        if self.position_bias is not None:
            raise ForwardArgumentsError("position_bias is given, but GPT-2 and GPT-NeoX have no such bias.")
        attention = self.attention
        queries = attention.hook_q(_projected(query_input, attention.W_Q, attention.b_Q))
        keys = attention.hook_k(_projected(key_input, attention.W_K, attention.b_K))
        values = attention.hook_v(_projected(value_input, attention.W_V, attention.b_V))
        offset = 0 if self.past is None else int(self.past.past_keys.shape[1])
        if self.mask is not None and self.mask.shape[1] != offset + keys.shape[1]:
            raise ForwardArgumentsError(
                f"attention_mask has shape {list(self.mask.shape)}; it must be [batch, {offset + keys.shape[1]}], for "
                f"{offset} keys of before and {keys.shape[1]} new ones."
            )
        if queries.shape[1] != keys.shape[1]:
            raise ForwardArgumentsError(
                f"there are {queries.shape[1]} queries after {offset} earlier keys, and {keys.shape[1]} new keys. Each "
                "new position needs one of both."
            )
        rotary = _rotary_of(attention)
        if rotary is not None:
            queries = attention.hook_rot_q(self._rotated(queries, rotary, offset))
            keys = attention.hook_rot_k(self._rotated(keys, rotary, offset))
        if self.past is not None:
            keys, values = self.past.append(keys, values)
        scores = attention.hook_attn_scores(self._scores(queries, keys))
        pattern = attention.hook_pattern(scores.softmax(-1, dtype=torch.float32).to(values.dtype))
        z = attention.hook_z(torch.einsum("bhqk,bkhd->bqhd", pattern, values))
        if attention.hook_result.is_active():
            return attention.hook_result(torch.einsum("bqhd,hdm->bqhm", z, attention.W_O)).sum(2) + attention.b_O
        return torch.einsum("bqhd,hdm->bqm", z, attention.W_O) + attention.b_O

    def _scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """``[batch, head_index, query_pos, key_pos]``, masked."""
        scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys) * _scale_of(self.attention)
        if vars(self.attention.module).get("is_causal", True):
            scores = scores.masked_fill(~self._seen(scores), torch.finfo(scores.dtype).min)
        return scores if self.additive_mask is None else scores + self.additive_mask

    def _seen(self, scores: torch.Tensor) -> torch.Tensor:
        """Which keys a query sees, ``[batch or 1, 1, query_pos, key_pos]``."""
        n_queries, n_keys = scores.shape[-2:]
        seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=scores.device).tril(n_keys - n_queries)[
            None, None
        ]
        return seen if self.mask is None else seen & self.mask[:, None, None, :].bool()

    def _rotated(self, heads: torch.Tensor, rotary: nn.Module, offset: int) -> torch.Tensor:
        """``[batch, pos, head_index, d_head]`` turned by its positions, as GPT-NeoX does."""
        if self.mask is None:
            positions = torch.arange(offset, offset + heads.shape[1], device=heads.device)[None]
        else:
            positions = positions_of(self.mask)[:, offset:]
        frequencies: Any = rotary.inv_freq
        angles = positions[..., None].float() * frequencies.float()
        angles = torch.cat([angles, angles], dim=-1)[:, :, None]
        cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
        turned, rest = heads[..., : angles.shape[-1]], heads[..., angles.shape[-1] :]
        first, second = turned.chunk(2, dim=-1)
        return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)


def _projected(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[batch, pos, head_index, d_head]``, for one input of all heads or one of each."""
    axes = "bphm" if inputs.dim() == 4 else "bpm"
    return torch.einsum(f"{axes},hmd->bphd", inputs, weight) + bias


def _scale_of(attention: "Attention") -> float:
    """What the scores are multiplied by."""
    config = attention.config.to_dict()
    scale = attention.d_head**-0.5 if config.get("scale_attn_weights", True) else 1.0
    if config.get("scale_attn_by_inverse_layer_idx", False):
        scale /= attention.index + 1
    return scale


def _rotary_of(attention: "Attention") -> nn.Module | None:
    """The module with the rotary embedding's frequencies; releases differ in where it is. None for GPT-2.

    Raises:
        ForwardArgumentsError: the frequencies depend on the length, or are scaled.
    """
    for module in (*attention.module.modules(), *attention.model.children()):
        if "inv_freq" not in module._buffers:
            continue
        config = attention.config.to_dict()
        settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind != "default":
            raise ForwardArgumentsError(
                f"this model's rotary embedding is of the kind {kind!r}, and attention by hand knows the default only. "
                "Run the layer: model.blocks[i](residual)."
            )
        found: nn.Module = module
        return found
    return None
