"""GPT-Neo as in 4.44, but with cache objects; its flash attention takes a padding mask for a mask of scores."""

from mishformer_lens.patchers.gpt_neo import v4_44

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = {
    **v4_44.UNSUPPORTED,
    "flash_attention_2 with padding": "these releases of transformers fail there, hooked or not",
}

EDITS = v4_44.EDITS
