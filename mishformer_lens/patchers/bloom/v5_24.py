"""BLOOM as in 4.44, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.bloom import v4_44

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

EDITS = v4_44.EDITS
