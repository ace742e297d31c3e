"""Which families the drop-in serves: those whose description says where their weights are."""

from typing import Any

from torch import nn

from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.instrumentation import Instrumentation, find_base_model
from mishformer_lens.patchers import FAMILIES, Family
from mishformer_lens.patchers.family import NORMS_BEFORE
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
    """Refuse a model of a family that the drop-in does not serve, before anything is done to it.

    Raises:
        UnsupportedModelError: it is of such a family, or of none, or its embedding is of another width than its blocks.
    """
    family, base = find_base_model(model)
    embedding: Any = base.get_submodule(drop_in_of(family).embed)
    width, d_model = int(embedding.weight.shape[-1]), base.config.hidden_size  # type: ignore[union-attr]
    if width != d_model:
        raise UnsupportedModelError(
            f"HookedTransformer does not serve this {type(model).__name__}: its embedding gives {width} numbers and "
            f"its blocks take {d_model}, with a projection between them that W_E and W_U have no place for. "
            "mishformer_lens.instrument(model) works."
        )


def refuse_other_forms(instrumentation: Instrumentation) -> None:
    """Refuse a model that has what TransformerLens's ``HookedTransformer`` has no names for.

    Raises:
        UnsupportedModelError: its blocks have cross-attention, or their norms in the residual stream, or no norm stands
            behind them.
    """
    form = _other_form(instrumentation)
    if form is not None:
        raise UnsupportedModelError(
            f"this {instrumentation.family.name} model has {form}, which TransformerLens's HookedTransformer has no "
            "names for. mishformer_lens.instrument(model) works: it puts every hook point on the model, to be run as "
            "HuggingFace's own, with hooks, observers and caches."
        )


def _other_form(instrumentation: Instrumentation) -> str | None:
    other_form = drop_in_of(instrumentation.family).other_form
    if other_form is not None:
        return other_form
    blocks = instrumentation.absent()
    if instrumentation.family.cross_attention is not None and any("cross_attn" not in missing for missing in blocks):
        return "cross-attention"
    if any(NORMS_BEFORE in missing for missing in blocks):
        return "its norms in the residual stream"
    return "no norm behind its blocks" if "ln_final" in instrumentation.absent_from_model() else None
