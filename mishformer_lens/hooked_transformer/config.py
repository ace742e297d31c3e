"""The configuration under TransformerLens's field names, the same on every release of TransformerLens."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from mishformer_lens.patchers.parts import DropIn


@dataclasses.dataclass
class HookedTransformerConfig:
    """What TransformerLens 2.x calls ``HookedTransformerConfig``, read off a HuggingFace model.

    Every field of TransformerLens 2.15.4 is here. Those that say nothing of the model's family keep TransformerLens's
    default. The model is HuggingFace's: changing a field here changes no computation, except for the ``use_*`` flags,
    ``default_prepend_bos`` and ``device``, which the drop-in itself reads. What a live model can change, layers,
    vocabulary, heads, device and dtype, is read from it whenever ``model.cfg`` is asked for.

    Attributes:
        d_head: size of a head, in numbers; ``d_model``, ``d_mlp``, ``d_vocab`` alike.
        n_ctx: the longest sequence, in tokens.
        use_attn_result, use_split_qkv_input, use_hook_mlp_in, use_attn_in: whether a cache of everything includes the
            hook points that TransformerLens keeps behind this flag. Asked for by name they are computed in any case.
        normalization_type: ``LN``, or ``LNPre`` once gain and bias are folded into the weights that follow.
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
    rotary_base: int = 10000
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


def config_of(hf_model: Any, drop_in: DropIn, seen: Mapping[str, Any]) -> HookedTransformerConfig:
    """Read the configuration off a HuggingFace model.

    Args:
        drop_in: what is known of its family.
        seen: the fields that were read from the live modules.
    """
    config = hf_model.config
    values: dict[str, Any] = config.to_dict()
    d_head = config.hidden_size // config.num_attention_heads
    return HookedTransformerConfig(
        d_model=config.hidden_size,
        n_ctx=config.max_position_embeddings,
        d_head=d_head,
        model_name=str(values.get("_name_or_path") or "custom").rpartition("/")[2],
        attn_scale=math.sqrt(d_head),
        original_architecture=type(hf_model).__name__,
        tokenizer_name=values.get("_name_or_path") or None,
        initializer_range=values["initializer_range"],
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
        **seen,
        **{field: values[name] for field, name in drop_in.config.items()},
        **({} if drop_in.rotary is None else _rotary_fields(values, drop_in.rotary, d_head)),
    )


def d_mlp_of(config: Any) -> int:
    """The number of neurons that a configuration asks for."""
    values: dict[str, Any] = config.to_dict()
    return int(values.get("intermediate_size") or values.get("n_inner") or 4 * config.hidden_size)


def _rotary_fields(values: dict[str, Any], older_names: tuple[str, str], d_head: int) -> dict[str, Any]:
    # Newer configurations gather the rotary settings in one field.
    rope = values.get("rope_parameters") or {}
    part, base = older_names
    percentage = rope["partial_rotary_factor"] if "partial_rotary_factor" in rope else values[part]
    return {
        "positional_embedding_type": "rotary",
        "rotary_dim": round(percentage * d_head),
        "rotary_base": int(rope["rope_theta"] if "rope_theta" in rope else values[base]),
    }
