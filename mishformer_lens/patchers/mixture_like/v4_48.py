"""Mixtures whose experts are modules, since attention looks its function up in the registry of all models."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import v4_48
from mishformer_lens.patchers.mixture_like.modules import described as described
from mishformer_lens.patchers.mixture_like.modules import with_modules

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED


def edits(family: Family) -> Edits:
    """The edits for ``family``, from the forms that its description chooses."""
    return v4_48.edits(with_modules(family))
