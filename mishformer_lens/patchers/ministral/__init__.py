"""Ministral: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="ministral",
    base_model="MinistralModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="4.57",
    drop_in=DROP_IN,
    template="llama_like",
    prefix="Ministral",
    forms=forms.LLAMA,
)
