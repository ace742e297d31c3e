"""What variants for releases where each expert is a module share."""

import dataclasses
from typing import Any

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.mixture_like.components import PARTS

# The expressions that give the numbers of the experts that have tokens, where mixtures run over those alone.
LIST_OF_HIT = "(expert_mask.sum(dim=(-1, -2)) > 0).nonzero(as_tuple=True)[0].tolist()"
TENSOR_OF_HIT = "torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero()"

_OF_LATER_RELEASES = ("TopKRouter.forward", "Experts.forward")


def described(family: Family) -> dict[str, Any]:
    """The fields of ``family`` that are otherwise in these releases."""
    assert family.experts is not None
    components = {part: name for part, name in family.components.items() if part not in PARTS}
    return {
        "components": components | dict(family.experts.as_modules),
        "experts": dataclasses.replace(family.experts, shared_first=False),
        "optional": tuple(part for part in family.optional if part not in PARTS),
    }


def with_modules(family: Family) -> Family:
    """``family`` with the forms of these releases."""
    kept = {member: edits for member, edits in family.forms.items() if member not in _OF_LATER_RELEASES}
    return dataclasses.replace(family, forms={**kept, **family.module_forms})


def passing_by(family: Family, edits: Edits, hit: str) -> dict[str, Any]:
    """``edits``, and hooks of experts without tokens are told, where the mixture runs over those that have some.

    Args:
        hit: the expression that gives their numbers.
    """
    assert family.experts is not None
    member = f"{family.prefix}SparseMoeBlock.forward"
    told = f"self.expert_hooks.each({hit}, hidden_states, self.{family.experts.d_mlp})"
    return {**edits, member: [*edits[member], (hit, told)]}
