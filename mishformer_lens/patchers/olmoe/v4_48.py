"""OLMoE as in 4.45, with one attention class per implementation for longer than others."""

from mishformer_lens.patchers.mixture_like import v4_44
from mishformer_lens.patchers.olmoe import FAMILY

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED
DESCRIBED = v4_44.described(FAMILY)

EDITS = v4_44.edits(FAMILY)
