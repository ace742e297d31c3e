"""StableLM as in 4.44, with one attention class per implementation for longer than others."""

from mishformer_lens.patchers.llama_like import forms, v4_44
from mishformer_lens.patchers.stablelm import FAMILY

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

EDITS = {**v4_44.edits(FAMILY), "StableLmMLP.forward": forms.GATED_MLP["MLP.forward"]}
