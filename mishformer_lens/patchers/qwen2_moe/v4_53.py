"""Qwen2-MoE as in 4.44, but it runs over a tensor of the experts that have tokens."""

from mishformer_lens.patchers.mixture_like import modules, v4_44
from mishformer_lens.patchers.qwen2_moe import FAMILY

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED
DESCRIBED = v4_44.described(FAMILY)

EDITS = modules.passing_by(FAMILY, v4_44.edits(FAMILY), modules.TENSOR_OF_HIT)
