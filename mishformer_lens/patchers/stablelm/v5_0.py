"""StableLM since its attention looks its function up in the registry of all models; flex attention is not for it."""

from mishformer_lens.patchers.llama_like import v4_48
from mishformer_lens.patchers.stablelm import FAMILY

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = tuple(each for each in v4_48.ATTENTION if each != "flex_attention")
UNSUPPORTED = {"flex_attention": "transformers refuses it for StableLM"}

EDITS = v4_48.edits(FAMILY)
