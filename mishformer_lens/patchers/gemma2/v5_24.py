"""Gemma2 as in 5.21, but its models call the key-value cache by another name."""

from mishformer_lens.patchers.gemma2 import FAMILY, v5_21
from mishformer_lens.patchers.llama_like import v5_24

CACHE_ARGUMENT = v5_24.CACHE_ARGUMENT
CACHE_BY_PLACE = v5_24.CACHE_BY_PLACE
ATTENTION = v5_21.ATTENTION
UNSUPPORTED = v5_21.UNSUPPORTED

EDITS = v5_24.edits(FAMILY)
