"""Gemma2: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS, PRE_AND_POST_NORMS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="gemma2",
    base_model="Gemma2Model",
    components=COMPONENTS | PRE_AND_POST_NORMS,
    norm=Norm("rms", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    template="llama_like",
    prefix="Gemma2",
    forms={**forms.GEMMA, **forms.PRE_AND_POST_NORM_LAYER},
    class_forms=forms.MULTIPLIED_EMBEDDING,
)
