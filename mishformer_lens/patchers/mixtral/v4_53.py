"""Mixtral as in 4.48, but it runs over a tensor of the experts that have tokens."""

from mishformer_lens.patchers.mixtral import FAMILY
from mishformer_lens.patchers.mixture_like import modules, v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED
DESCRIBED = v4_48.described(FAMILY)

EDITS = modules.passing_by(FAMILY, v4_48.edits(FAMILY), modules.TENSOR_OF_HIT)
