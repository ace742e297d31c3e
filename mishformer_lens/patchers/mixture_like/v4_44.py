"""Mixtures whose experts are modules, in llama-like sources with one attention class per implementation."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import v4_44
from mishformer_lens.patchers.mixture_like.modules import described as described
from mishformer_lens.patchers.mixture_like.modules import with_modules

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED


def edits(family: Family) -> Edits:
    """The edits for ``family``, from the forms that its description chooses."""
    return v4_44.edits(with_modules(family))
