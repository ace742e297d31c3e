"""OLMoE since its attention looks its function up in the registry of all models; flex attention is not for it."""

from mishformer_lens.patchers.mixture_like import v5_0
from mishformer_lens.patchers.olmoe import FAMILY

CACHE_ARGUMENT = v5_0.CACHE_ARGUMENT
CACHE_BY_PLACE = v5_0.CACHE_BY_PLACE
ATTENTION = tuple(each for each in v5_0.ATTENTION if each != "flex_attention")
UNSUPPORTED = {"flex_attention": "transformers refuses it for OLMoE"}

EDITS = v5_0.edits(FAMILY)
