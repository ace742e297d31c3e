"""Which families the drop-in serves: those whose description says where their weights are."""

from torch import nn

from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.instrumentation import find_base_model
from mishformer_lens.patchers import FAMILIES, Family
from mishformer_lens.patchers.parts import DropIn


def drop_in_of(family: Family) -> DropIn:
    """What the drop-in knows of a family.

    Raises:
        UnsupportedModelError: nothing.
    """
    if family.drop_in is None:
        served = ", ".join(each.name for each in FAMILIES.values() if each.drop_in is not None)
        raise UnsupportedModelError(
            f"HookedTransformer does not serve {family.name} models: it does not know their weights under "
            f"TransformerLens's names. It serves {served}. mishformer_lens.instrument(model) works: it puts every hook "
            "point on the model, to be run as HuggingFace's own, with hooks, observers and caches."
        )
    return family.drop_in


def refuse_without_drop_in(model: nn.Module) -> None:
    """Refuse a model of a kind that the drop-in does not serve, before anything is done to it.

    Raises:
        UnsupportedModelError: it is of such a family, or of none, or has cross-attention.
    """
    family, base = find_base_model(model)
    drop_in_of(family)
    crossing = (family.cross_attention or {}).get("cross_attn")
    if crossing is not None and any(
        crossing in block._modules for block in base.get_submodule(family.components["blocks"]).children()
    ):
        raise UnsupportedModelError(
            f"this {type(model).__name__} has cross-attention, and TransformerLens's HookedTransformer has none: its "
            "ln2 is the MLP's norm. mishformer_lens.instrument(model) works: it gives blocks the hook points of "
            "TransformerLens's encoder-decoder."
        )
