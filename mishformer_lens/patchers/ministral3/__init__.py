"""Ministral3: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="ministral3",
    base_model="Ministral3Model",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="5.0",
    template="llama_like",
    prefix="Ministral3",
    forms=forms.LLAMA,
)
