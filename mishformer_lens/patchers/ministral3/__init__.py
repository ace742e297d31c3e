"""Ministral3: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="ministral3",
    base_model="Ministral3Model",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="5.0",
    drop_in=dataclasses.replace(DROP_IN, not_by_hand="it multiplies queries by what their positions give"),
    template="llama_like",
    prefix="Ministral3",
    forms=forms.LLAMA,
)
