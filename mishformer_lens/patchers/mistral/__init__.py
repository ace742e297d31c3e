"""Mistral: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="mistral",
    base_model="MistralModel",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    template="llama_like",
    prefix="Mistral",
    forms=forms.LLAMA,
    class_forms={**attention_classes.FLASH_REPEATED, **forms.GATED_MLP_OF_ONE_STATE},
)
