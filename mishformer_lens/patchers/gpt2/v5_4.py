"""GPT-2 as in 5.1, but eager attention takes its dropout as an argument."""

from mishformer_lens.patchers.gpt2 import shared, v5_1

CACHE_ARGUMENT = v5_1.CACHE_ARGUMENT
CACHE_BY_PLACE = v5_1.CACHE_BY_PLACE
ATTENTION = v5_1.ATTENTION
UNSUPPORTED = v5_1.UNSUPPORTED

EDITS = {
    **v5_1.EDITS,
    "eager_attention_forward": [
        shared.SCORES,
        (
            "nn.functional.dropout(attn_weights, p=dropout, training=module.training)",
            "nn.functional.dropout(module.hook_pattern(attn_weights), p=dropout, training=module.training)",
        ),
    ],
}
