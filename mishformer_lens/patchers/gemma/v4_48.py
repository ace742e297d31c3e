"""Gemma as llama-like sources are, but the model multiplies its embedding when that is the residual stream already."""

import dataclasses

from mishformer_lens.patchers.gemma import FAMILY
from mishformer_lens.patchers.llama_like import forms, v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED

EDITS = v4_48.edits(dataclasses.replace(FAMILY, forms={**FAMILY.forms, **forms.MULTIPLIED_EMBEDDING}))
