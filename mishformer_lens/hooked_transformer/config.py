"""The configuration under TransformerLens's field names, the same on every release of TransformerLens."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mishformer_lens.hooked_transformer.components import Block, RMSNorm
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.parts import DropIn


@dataclasses.dataclass
class HookedTransformerConfig:
    """What TransformerLens 2.x calls ``HookedTransformerConfig``, read off a HuggingFace model.

    Every field of TransformerLens 2.15.4 is here, and of later releases' fields those that tell of a family. Those that
    say nothing of the model's family keep TransformerLens's default. The model is HuggingFace's: changing a field here
    changes no computation, except for the ``use_*`` flags, ``default_prepend_bos`` and ``device``, which the drop-in
    itself reads. What a live model can change, layers, vocabulary, heads, device and dtype, is read from it whenever
    ``model.cfg`` is asked for.

    Attributes:
        d_head: size of a head, in numbers; ``d_model``, ``d_mlp``, ``d_vocab`` alike.
        n_ctx: the longest sequence, in tokens.
        use_attn_result, use_split_qkv_input, use_hook_mlp_in, use_attn_in: whether a cache of everything includes the
            hook points that TransformerLens keeps behind this flag. Asked for by name they are computed in any case.
        normalization_type: ``LN`` or ``RMS``, or ``LNPre`` or ``RMSPre`` once gain and bias are folded into the weights
            that follow.
        n_key_value_heads: how many heads keys and values have; None where they are as many as queries have.
        attn_scale: what attention scores are divided by.
        window_size, attn_types: how many keys a query sees in the layers that are ``local``.
        rotary_base_local: the base of the rotary embedding in those layers, where it is another.
        use_qk_norm: whether queries and keys are normalised.
        dtype: of the weights.
        device: where the token embedding is.
    """

    n_layers: int
    d_model: int
    n_ctx: int
    d_head: int
    model_name: str = "custom"
    n_heads: int = -1
    d_mlp: int | None = None
    act_fn: str | None = None
    d_vocab: int = -1
    eps: float = 1e-5
    use_attn_result: bool = False
    use_attn_scale: bool = True
    attn_scale: float = -1.0
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    use_attn_in: bool = False
    use_local_attn: bool = False
    ungroup_grouped_query_attention: bool = False
    original_architecture: str | None = None
    from_checkpoint: bool = False
    checkpoint_index: int | None = None
    checkpoint_label_type: str | None = None
    checkpoint_value: int | None = None
    tokenizer_name: str | None = None
    window_size: int | None = None
    attn_types: list[str] | None = None
    init_mode: str = "gpt2"
    normalization_type: str | None = "LN"
    device: torch.device | str | None = None
    n_devices: int = 1
    attention_dir: str = "causal"
    attn_only: bool = False
    seed: int | None = None
    initializer_range: float = -1.0
    init_weights: bool = False
    scale_attn_by_inverse_layer_idx: bool = False
    positional_embedding_type: str = "standard"
    final_rms: bool = False
    d_vocab_out: int = -1
    parallel_attn_mlp: bool = False
    rotary_dim: int | None = None
    n_params: int | None = None
    use_hook_tokens: bool = False
    gated_mlp: bool = False
    default_prepend_bos: bool = True
    dtype: torch.dtype = torch.float32
    tokenizer_prepends_bos: bool | None = None
    n_key_value_heads: int | None = None
    post_embedding_ln: bool = False
    rotary_base: int | float = 10000
    rotary_base_local: int | float | None = None
    use_qk_norm: bool = False
    trust_remote_code: bool = False
    rotary_adjacent_pairs: bool = False
    load_in_4bit: bool = False
    num_experts: int | None = None
    experts_per_token: int | None = None
    relative_attention_max_distance: int | None = None
    relative_attention_num_buckets: int | None = None
    decoder_start_token_id: int | None = None
    tie_word_embeddings: bool = False
    use_normalization_before_and_after: bool = False
    attn_scores_soft_cap: float = -1.0
    output_logits_soft_cap: float = -1.0
    use_NTK_by_parts_rope: bool = False  # noqa: N815 - TransformerLens's name
    NTK_by_parts_low_freq_factor: float = 1.0
    NTK_by_parts_high_freq_factor: float = 4.0
    NTK_by_parts_factor: float = 8.0
    NTK_original_ctx_len: int = 8192

    def to_dict(self) -> dict[str, Any]:
        """The fields, by name."""
        return vars(self)

    def take_over(self, seen: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Set the fields that the model has changed since ``before``; others keep what somebody may have set."""
        for name, value in seen.items():
            if value != before[name]:
                setattr(self, name, value)

    def is_layer_norm_activation(self) -> bool:
        """Whether the MLP has a layer norm after its activation, as TransformerLens's SoLU models do. Never here."""
        return False


def config_of(
    hf_model: Any, family: Family, drop_in: DropIn, ln_final: RMSNorm, blocks: Sequence[Block], seen: Mapping[str, Any]
) -> HookedTransformerConfig:
    """Read the configuration off a HuggingFace model.

    Args:
        family, drop_in: what is known of its family.
        ln_final, blocks: the live parts.
        seen: the fields that were read from the live modules.
    """
    config = hf_model.config
    values: dict[str, Any] = config.to_dict()
    fields: dict[str, Any] = {
        "d_model": config.hidden_size,
        "model_name": str(values.get("_name_or_path") or "custom").rpartition("/")[2],
        "original_architecture": type(hf_model).__name__,
        "tokenizer_name": values.get("_name_or_path") or None,
        "initializer_range": values.get("initializer_range", -1.0),
        "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
        "eps": ln_final.eps,
        "normalization_type": "RMS" if family.norm.kind == "rms" else "LN",
        "final_rms": family.norm.kind == "rms",
        "gated_mlp": family.mlp.gated,
        "use_normalization_before_and_after": "ln1_post" in family.components,
        "use_qk_norm": any(block.attn.norms for block in blocks),
        "default_prepend_bos": drop_in.prepend_bos,
        "attn_scores_soft_cap": values.get("attn_logit_softcapping") or -1.0,
        "output_logits_soft_cap": values.get("final_logit_softcapping") or -1.0,
        "attn_scale": _attn_scale(blocks, seen["d_head"]),
        "post_embedding_ln": "embed.ln" in family.components,
        **seen,
        **{field: _first_set(values, names) for field, names in drop_in.config.items()},
        **drop_in.fixed,
        **_window_fields(blocks),
    }
    if "n_ctx" not in fields:
        fields["n_ctx"] = config.max_position_embeddings
    parallel = family.block.parallel
    fields["parallel_attn_mlp"] = bool(values[parallel]) if isinstance(parallel, str) else parallel
    if family.attention.rotary:
        fields |= _rotary_fields(values, drop_in, hf_model, seen["d_head"])
        fields["rotary_adjacent_pairs"] = family.attention.adjacent_pairs
    return HookedTransformerConfig(**fields)


def d_mlp_of(config: Any) -> int:
    """The number of neurons that a configuration asks for."""
    values: dict[str, Any] = config.to_dict()
    return int(values.get("intermediate_size") or values.get("n_inner") or 4 * config.hidden_size)


def _first_set(values: Mapping[str, Any], names: str | tuple[str, ...]) -> Any:
    names = (names,) if isinstance(names, str) else names
    return next((values[name] for name in names if values.get(name) is not None), None)


def _attn_scale(blocks: Sequence[Block], d_head: int) -> float:
    """What scores are divided by, as the first layer has it."""
    scaling = vars(blocks[0].attn.module).get("scaling") if blocks else None
    return math.sqrt(d_head) if scaling is None else 1 / scaling


def _window_fields(blocks: Sequence[Block]) -> dict[str, Any]:
    """How many keys the layers see, if some do not see all."""
    windows = [block.attn.window for block in blocks]
    seen = [window for window in windows if window is not None]
    if not seen:
        return {}
    return {
        "use_local_attn": True,
        "window_size": max(seen),
        "attn_types": ["global" if window is None else "local" for window in windows],
    }


def rotary_settings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How layers that see all keys are rotated, and those with a window; newer configurations have one field."""
    settings = values.get("rope_parameters") or {}
    if "full_attention" in settings:
        return settings["full_attention"], settings.get("sliding_attention", {})
    own = settings or values.get("rope_scaling") or {}
    return own, {"rope_theta": values["rope_local_base_freq"]} if values.get("rope_local_base_freq") else {}


def _rotary_fields(values: dict[str, Any], drop_in: DropIn, hf_model: Any, d_head: int) -> dict[str, Any]:
    rope, local = rotary_settings(values)
    # One frequency for two numbers, in whatever module a release keeps them.
    buffers = (len(buffer) for name, buffer in hf_model.named_buffers() if name.endswith("inv_freq"))
    fields: dict[str, Any] = {"positional_embedding_type": "rotary"}
    frequencies = next(buffers, None)
    if frequencies is not None:
        fields["rotary_dim"] = 2 * frequencies
    if drop_in.rotary is not None:
        part, base = drop_in.rotary
        fields.setdefault("rotary_dim", round((rope.get("partial_rotary_factor") or values.get(part) or 1.0) * d_head))
        fields["rotary_base"] = _base(rope["rope_theta"] if "rope_theta" in rope else values[base])
    if "rope_theta" in local:
        fields["rotary_base_local"] = _base(local["rope_theta"])
    if rope.get("rope_type", rope.get("type")) == "llama3":
        fields |= {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    return fields


def _base(base: float) -> int | float:
    return int(base) if base == int(base) else base
