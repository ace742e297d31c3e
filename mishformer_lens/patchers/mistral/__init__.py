"""Mistral: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="mistral",
    base_model="MistralModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    drop_in=DROP_IN,
    template="llama_like",
    prefix="Mistral",
    forms=forms.LLAMA,
    class_forms={**attention_classes.FLASH_REPEATED, **forms.GATED_MLP_OF_ONE_STATE},
)
