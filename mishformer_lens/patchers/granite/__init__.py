"""Granite: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="granite",
    base_model="GraniteModel",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="4.45",
    template="llama_like",
    prefix="Granite",
    forms={**forms.LLAMA, **forms.PRE_NORM_LAYER_WITH_FACTOR},
)
