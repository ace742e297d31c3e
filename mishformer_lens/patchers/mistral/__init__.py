"""Mistral: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS
from mishformer_lens.patchers.parts import MLP, Attention, Norm

FAMILY = Family(
    name="mistral",
    base_model="MistralModel",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=Attention(
        rotary=True,
        n_heads="config.num_attention_heads",
        n_key_value_heads="config.num_key_value_heads",
    ),
    mlp=MLP(gated=True),
    template="llama_like",
    prefix="Mistral",
    forms=forms.LLAMA,
    class_forms={**attention_classes.FLASH_REPEATED, **forms.GATED_MLP_OF_ONE_STATE},
)
