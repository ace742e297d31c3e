"""GPT-NeoX as in 5.1, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.gpt_neox import v5_1

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = False
ATTENTION = v5_1.ATTENTION
UNSUPPORTED = v5_1.UNSUPPORTED

EDITS = v5_1.EDITS
