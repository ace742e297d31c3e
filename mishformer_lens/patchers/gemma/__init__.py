"""Gemma: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="gemma",
    base_model="GemmaModel",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    template="llama_like",
    prefix="Gemma",
    forms=forms.GEMMA,
    class_forms=forms.MULTIPLIED_EMBEDDING,
)
