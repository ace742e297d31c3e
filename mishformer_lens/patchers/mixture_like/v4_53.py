"""Mixtures as in 4.48, but they run over a tensor of the experts that have tokens."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.mixture_like import v4_48
from mishformer_lens.patchers.mixture_like.modules import described as described
from mishformer_lens.patchers.mixture_like.modules import passing_by

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = v4_48.ATTENTION
UNSUPPORTED = v4_48.UNSUPPORTED

HIT = "torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero()"


def edits(family: Family) -> Edits:
    """The edits for ``family``, from the forms that its description chooses."""
    return passing_by(family, v4_48.edits(family), HIT)
