"""GPT-2 as in 4.48, but eager attention is handed a mask of the future too."""

from mishformer_lens.patchers.gpt2 import shared, v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = {
    **v4_48.UNSUPPORTED,
    "reorder_and_upcast_attn without attention_mask": "these releases of transformers fail there, hooked or not",
}

EDITS = {
    **v4_48.EDITS,
    "GPT2Attention.forward": [
        shared.PROJECT_IN,
        v4_48.SPLIT_HEADS,
        shared.CHOOSE_BY_INDEX,
        shared.Z,
        shared.PROJECT_OUT,
    ],
    **shared.block("cross_attn_output"),
}
