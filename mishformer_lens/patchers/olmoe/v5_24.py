"""OLMoE as in 5.0, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.mixture_like import v5_24
from mishformer_lens.patchers.olmoe import FAMILY, v5_0

CACHE_ARGUMENT = v5_24.CACHE_ARGUMENT
CACHE_BY_PLACE = v5_24.CACHE_BY_PLACE
ATTENTION = v5_0.ATTENTION
UNSUPPORTED = v5_0.UNSUPPORTED

EDITS = v5_24.edits(FAMILY)
