"""OPT as in 5.2, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.opt import v5_2

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = False
ATTENTION = v5_2.ATTENTION
UNSUPPORTED = v5_2.UNSUPPORTED

EDITS = v5_2.EDITS
