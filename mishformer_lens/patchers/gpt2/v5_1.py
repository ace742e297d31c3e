"""GPT-2 as in 4.54, but the attention function is looked up by a method."""

from mishformer_lens.patchers.gpt2 import shared, v4_54

CACHE_ARGUMENT = v4_54.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_54.CACHE_BY_PLACE
ATTENTION = v4_54.ATTENTION
UNSUPPORTED = {
    **v4_54.UNSUPPORTED,
    "encoder_attention_mask": "transformers 5.2 to 5.15 ignore it in GPT-2's cross-attention, hooked or not",
}

EDITS = {
    **v4_54.EDITS,
    "GPT2Attention.forward": [
        shared.PROJECT_IN,
        *shared.SPLIT_QUERY_LAST,
        shared.CHOOSE_BY_METHOD,
        shared.Z,
        shared.PROJECT_OUT,
    ],
}
