"""Falcon as in 4.45, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.falcon import v4_45

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = v4_45.CACHE_BY_PLACE
ATTENTION = v4_45.ATTENTION
UNSUPPORTED = v4_45.UNSUPPORTED

EDITS = v4_45.EDITS
