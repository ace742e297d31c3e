"""MPT as in 4.54, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.mpt import v4_54

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = v4_54.CACHE_BY_PLACE
ATTENTION = v4_54.ATTENTION
UNSUPPORTED = v4_54.UNSUPPORTED

EDITS = v4_54.EDITS
