"""GPT-NeoX as in 4.44, but with cache objects and with a rotary embedding that the model computes once."""

from mishformer_lens.patchers.gpt_neox import shared, v4_44

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

ROTATED_KEYS = (
    "return query, key, value, layer_past",
    "return query, self.hook_rot_k.heads_first(key, copy=True), value, layer_past",
)

EDITS = {
    **v4_44.EDITS,
    "GPTNeoXAttention._attn_projections_and_rope": [
        shared.PROJECT_IN,
        v4_44.SPLIT_HEADS,
        v4_44.ROTATED_QUERY,
        ROTATED_KEYS,
    ],
}
