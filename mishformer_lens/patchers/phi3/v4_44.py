"""Phi-3 with one attention class per implementation, of which models may not choose sdpa's."""

from mishformer_lens.patchers.llama_like import v4_44
from mishformer_lens.patchers.phi3 import FAMILY

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = tuple(each for each in v4_44.ATTENTION if each != "sdpa")
UNSUPPORTED = {**v4_44.UNSUPPORTED, "sdpa": "transformers refuses it for Phi-3 in this release"}

EDITS = v4_44.edits(FAMILY)
