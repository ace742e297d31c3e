"""Attention computed from the weights, for inputs that HuggingFace's own modules do not take."""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

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
            raise ForwardArgumentsError("position_bias is given, and the families that this serves have no such bias.")
        attention = self.attention
        _refuse_unknown(attention)
        queries = attention.hook_q(_projected(query_input, attention.W_Q, attention.b_Q))
        keys = attention.hook_k(_projected(key_input, attention._W_K, attention._b_K))
        values = attention.hook_v(_projected(value_input, attention._W_V, attention._b_V))
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
        _refuse_window(attention, offset + keys.shape[1])
        queries, keys = attention.normalized("q_norm", queries), attention.normalized("k_norm", keys)
        rotary = _rotary_of(attention)
        if rotary is not None:
            queries = attention.hook_rot_q(self._rotated(queries, rotary, offset))
            keys = attention.hook_rot_k(self._rotated(keys, rotary, offset))
        if self.past is not None:
            keys, values = self.past.append(keys, values)
        if attention.grouped:
            times = attention.n_heads // attention.n_key_value_heads
            keys, values = keys.repeat_interleave(times, dim=2), values.repeat_interleave(times, dim=2)
        scores = attention.hook_attn_scores(self._scores(queries, keys))
        pattern = attention.hook_pattern(scores.softmax(-1, dtype=torch.float32).to(values.dtype))
        z = attention.hook_z(torch.einsum("bhqk,bkhd->bqhd", pattern, values))
        # With the factor of what it writes, which comes behind the norm where there is one.
        if attention.hook_result.is_active():
            return attention.hook_result(torch.einsum("bqhd,hdm->bqhm", z, attention.W_O)).sum(2) + attention.b_O
        return torch.einsum("bqhd,hdm->bqm", z, attention.W_O) + attention.b_O

    def _scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """``[batch, head_index, query_pos, key_pos]``, masked."""
        scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys) * _scale_of(self.attention)
        cap = self.attention.config.to_dict().get("attn_logit_softcapping")
        if cap:
            scores = cap * torch.tanh(scores / cap)
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

    def _rotated(self, heads: torch.Tensor, frequencies: torch.Tensor, offset: int) -> torch.Tensor:
        """``[batch, pos, head_index, d_head]`` turned by its positions."""
        if self.mask is None:
            positions = torch.arange(offset, offset + heads.shape[1], device=heads.device)[None]
        else:
            positions = positions_of(self.mask)[:, offset:]
        angles = positions[..., None].float() * frequencies.float()
        adjacent = self.attention.adjacent_pairs
        both = angles.repeat_interleave(2, dim=-1) if adjacent else torch.cat([angles, angles], dim=-1)
        both = both[:, :, None]
        cos, sin = both.cos().to(heads.dtype), both.sin().to(heads.dtype)
        turned, rest = heads[..., : both.shape[-1]], heads[..., both.shape[-1] :]
        if adjacent:
            quarter = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
        else:
            first, second = turned.chunk(2, dim=-1)
            quarter = torch.cat([-second, first], dim=-1)
        return torch.cat([turned * cos + quarter * sin, rest], dim=-1)


def _projected(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[batch, pos, head_index, d_head]``, for one input of all heads or one of each."""
    axes = "bphm" if inputs.dim() == 4 else "bpm"
    return torch.einsum(f"{axes},hmd->bphd", inputs, weight) + bias


def _scale_of(attention: "Attention") -> float:
    """What the scores are multiplied by."""
    own = vars(attention.module).get("scaling")
    if own is not None:
        return float(own)
    config = attention.config.to_dict()
    scaled = attention.fixed.get("use_attn_scale", config.get("scale_attn_weights", True))
    scale = attention.d_head**-0.5 if scaled else 1.0
    if config.get("scale_attn_by_inverse_layer_idx", False):
        scale /= attention.index + 1
    return scale


def _refuse_unknown(attention: "Attention") -> None:
    """Refuse a layer that does more than this knows.

    Raises:
        ForwardArgumentsError: it clips queries, keys and values, or does not rotate where others of its model do.
    """
    reason = attention.not_by_hand()
    if reason is not None:
        raise ForwardArgumentsError(
            f"{attention.name} cannot be computed by hand: {reason}. Run the layer: model.blocks[i](residual)."
        )


def _refuse_window(attention: "Attention", n_keys: int) -> None:
    window = attention.window
    if window is not None and n_keys > window:
        raise ForwardArgumentsError(
            f"{attention.name} sees {window} keys at a time, of which attention by hand knows nothing, and there are "
            f"{n_keys}. Run the layer: model.blocks[i](residual)."
        )


def _rotary_of(attention: "Attention") -> Any | None:
    """The frequencies of the rotary embedding; releases differ in where they are. None where nothing is rotated.

    Raises:
        ForwardArgumentsError: the frequencies depend on the length, or are scaled.
    """
    if not attention.rotary:
        return None
    config = attention.config.to_dict()
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = [settings, *(each for each in settings.values() if isinstance(each, dict))]
    for each in kinds:
        kind = each.get("rope_type", each.get("type", "default"))
        if kind != "default":
            raise ForwardArgumentsError(
                f"this model's rotary embedding is of the kind {kind!r}, and attention by hand knows the default only. "
                "Run the layer: model.blocks[i](residual)."
            )
    for module in (*attention.module.modules(), *attention.model.children()):
        if "inv_freq" in module._buffers:
            return module._buffers["inv_freq"]
    raise ForwardArgumentsError(
        f"{attention.name} rotates by frequencies that attention by hand does not find. Run the layer: "
        "model.blocks[i](residual)."
    )
