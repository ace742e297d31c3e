"""Llama: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS
from mishformer_lens.patchers.parts import MLP, Attention, Norm

FAMILY = Family(
    name="llama",
    base_model="LlamaModel",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=Attention(
        rotary=True,
        n_heads="config.num_attention_heads",
        n_key_value_heads="config.num_key_value_heads",
    ),
    mlp=MLP(gated=True),
    # Otherwise releases up to 4.46 project by slices of the weights.
    needs={"pretraining_tp": 1},
    template="llama_like",
    prefix="Llama",
    forms=forms.LLAMA,
)
