"""Falcon as in 4.44, but with cache objects."""

from mishformer_lens.patchers.falcon import v4_44

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

EDITS = v4_44.EDITS
