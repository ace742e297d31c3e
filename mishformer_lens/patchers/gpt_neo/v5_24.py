"""GPT-Neo as in 4.45, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.gpt_neo import v4_45

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = False
ATTENTION = v4_45.ATTENTION
UNSUPPORTED = v4_45.UNSUPPORTED

EDITS = v4_45.EDITS
