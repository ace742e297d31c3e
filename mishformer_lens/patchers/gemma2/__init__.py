"""Gemma2: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, PRE_AND_POST_NORMS
from mishformer_lens.patchers.parts import MLP, Attention, Norm

FAMILY = Family(
    name="gemma2",
    base_model="Gemma2Model",
    components=COMPONENTS | PRE_AND_POST_NORMS,
    norm=Norm("rms", own=True),
    attention=Attention(
        rotary=True,
        n_heads="config.num_attention_heads",
        n_key_value_heads="config.num_key_value_heads",
    ),
    mlp=MLP(gated=True),
    template="llama_like",
    prefix="Gemma2",
    forms={**forms.GEMMA, **forms.PRE_AND_POST_NORM_LAYER},
    class_forms=forms.MULTIPLIED_EMBEDDING,
)
