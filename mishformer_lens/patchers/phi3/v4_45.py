"""Phi-3 as in 4.44, and models may choose sdpa."""

from mishformer_lens.patchers.llama_like import v4_44
from mishformer_lens.patchers.phi3 import FAMILY

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

EDITS = v4_44.edits(FAMILY)
