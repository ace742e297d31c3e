"""GPT-NeoX as in 4.49, but the configuration alone decides on the attention function."""

from mishformer_lens.patchers.gpt_neox import shared, v4_49

CACHE_ARGUMENT = v4_49.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_49.CACHE_BY_PLACE
ATTENTION = v4_49.ATTENTION
UNSUPPORTED = v4_49.UNSUPPORTED

EDITS = {
    **v4_49.EDITS,
    "GPTNeoXAttention.forward": [
        shared.PROJECT_IN,
        v4_49.SPLIT_HEADS,
        v4_49.ROTATED_QUERY,
        v4_49.ROTATED_KEYS,
        (
            "ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]",
            "self.attention_scores.choose("
            "ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation], eager_attention_forward)",
        ),
        v4_49.Z,
        shared.PROJECT_OUT,
    ],
}
