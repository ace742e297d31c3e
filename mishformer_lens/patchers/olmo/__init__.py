"""Olmo: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS
from mishformer_lens.patchers.parts import MLP, Attention, Norm

FAMILY = Family(
    name="olmo",
    base_model="OlmoModel",
    components=COMPONENTS,
    norm=Norm("layer", own=True),
    attention=Attention(
        rotary=True,
        n_heads="config.num_attention_heads",
        n_key_value_heads="config.num_key_value_heads",
        clipped="config.clip_qkv",
    ),
    mlp=MLP(gated=True),
    template="llama_like",
    prefix="Olmo",
    forms={**forms.LLAMA_WITHOUT_NORM, **forms.LAYER_NORM_WITHOUT_WEIGHTS},
)
