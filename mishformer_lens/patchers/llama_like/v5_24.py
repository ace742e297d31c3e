"""Llama-like sources as in 4.48, but their models call the key-value cache by another name."""

from mishformer_lens.patchers.llama_like import v4_48

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = False
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED

edits = v4_48.edits
