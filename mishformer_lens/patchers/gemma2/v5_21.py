"""Gemma2 as in 5.4, but it offers no sdpa, which knows no soft cap."""

from mishformer_lens.patchers.gemma2 import FAMILY
from mishformer_lens.patchers.llama_like import v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = tuple(each for each in v4_48.ATTENTION if each != "sdpa")
UNSUPPORTED = {"sdpa": "transformers refuses it for Gemma2 from 5.21 on: it knows no soft cap"}

EDITS = v4_48.edits(FAMILY)
