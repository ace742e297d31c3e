"""OPT as in 4.52, but its flex attention goes on from a cache."""

from mishformer_lens.patchers.opt import v4_52

CACHE_ARGUMENT = v4_52.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_52.CACHE_BY_PLACE
ATTENTION = v4_52.ATTENTION
UNSUPPORTED: dict[str, str] = {}

EDITS = v4_52.EDITS
