"""GPT-Neo as in 4.45, but its flash attention takes a padding mask for what it is."""

from mishformer_lens.patchers.gpt_neo import v4_44, v4_45

CACHE_ARGUMENT = v4_45.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_45.CACHE_BY_PLACE
ATTENTION = v4_45.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

EDITS = v4_45.EDITS
