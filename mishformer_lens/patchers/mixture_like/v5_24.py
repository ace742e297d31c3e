"""Mixtures as in 5.0, but their models call the key-value cache by another name."""

from mishformer_lens.patchers.llama_like import v5_24

CACHE_ARGUMENT = v5_24.CACHE_ARGUMENT
CACHE_BY_PLACE = v5_24.CACHE_BY_PLACE
ATTENTION = v5_24.ATTENTION
UNSUPPORTED = v5_24.UNSUPPORTED

edits = v5_24.edits
