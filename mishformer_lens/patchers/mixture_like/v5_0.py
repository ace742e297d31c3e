"""Mixtures whose experts are one module, which kernels may compute, and whose router is another."""

from mishformer_lens.patchers.llama_like import v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED

edits = v4_48.edits
