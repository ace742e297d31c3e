"""GPT-2 as in 5.4, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.gpt2 import v4_54, v5_4

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = False
ATTENTION = v5_4.ATTENTION
UNSUPPORTED = v4_54.UNSUPPORTED

EDITS = v5_4.EDITS
