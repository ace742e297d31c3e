"""GPT-J as in 4.45, but a block calls by another name what its attention gives."""

from mishformer_lens.patchers.gptj import shared, v4_44, v4_45

CACHE_ARGUMENT = v4_45.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_45.CACHE_BY_PLACE
ATTENTION = v4_45.ATTENTION
UNSUPPORTED = v4_45.UNSUPPORTED

EDITS = {
    **v4_44.ATTENTION_CLASSES,
    **shared.MLP,
    **shared.block("attn_outputs"),
    **shared.MODEL,
}
