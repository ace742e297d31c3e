"""Mistral: what its models have in every release."""

import dataclasses

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
    drop_in=dataclasses.replace(
        DROP_IN,
        models=("mistralai/Mistral-Nemo-Base-2407", "mistralai/Mistral-Small-24B-Base-2501"),
        names={"mistral-7b": "mistralai/Mistral-7B-v0.1", "mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.1"},
    ),
    template="llama_like",
    prefix="Mistral",
    forms=forms.LLAMA,
    class_forms={**attention_classes.FLASH_REPEATED, **forms.GATED_MLP_OF_ONE_STATE},
)
