"""Llama-like sources with one attention class per implementation."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like.attention_classes import FLASH, PATTERN, attention_classes

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = False
ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {
    "flex_attention": "these releases of transformers have no flex attention for this family",
}


def edits(family: Family) -> Edits:
    """The edits for ``family``, from the forms that its description chooses."""
    forms = {**PATTERN, **FLASH, **family.forms, **family.class_forms}
    forms |= attention_classes(forms)
    for part in ("pattern", "flash"):
        del forms[part]
    return {
        f"{family.base_model}.forward": forms.pop("Model.forward"),
        **{f"{family.prefix}{member}": entries for member, entries in forms.items()},
    }
