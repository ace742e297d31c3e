"""GPT-2 as in 4.52, but with a cache for cross-attention, so that queries are split into heads last."""

from mishformer_lens.patchers.gpt2 import shared, v4_48, v4_52

CACHE_ARGUMENT = v4_52.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_52.CACHE_BY_PLACE
ATTENTION = v4_52.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED

EDITS = {
    **v4_52.EDITS,
    "GPT2Attention.forward": [
        shared.PROJECT_IN,
        *shared.SPLIT_QUERY_LAST,
        shared.CHOOSE_BY_INDEX,
        shared.Z,
        shared.PROJECT_OUT,
    ],
}
