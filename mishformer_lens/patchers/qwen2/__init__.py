"""Qwen2: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="qwen2",
    base_model="Qwen2Model",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    drop_in=dataclasses.replace(
        DROP_IN,
        models=(
            *(f"Qwen/Qwen1.5-{size}B{kind}" for size in ("0.5", "1.8", "4", "7", "14") for kind in ("", "-Chat")),
            *(f"Qwen/Qwen2-{size}B{kind}" for size in ("0.5", "1.5", "7") for kind in ("", "-Instruct")),
            *(
                f"Qwen/Qwen2.5-{size}B{kind}"
                for size in ("0.5", "1.5", "3", "7", "14", "32", "72")
                for kind in ("", "-Instruct")
            ),
            "Qwen/QwQ-32B-Preview",
        ),
        names={"qwen-32b-preview": "Qwen/QwQ-32B-Preview"},
        prepend_bos=False,
    ),
    template="llama_like",
    prefix="Qwen2",
    forms=forms.LLAMA,
    class_forms={**attention_classes.FLASH_REPEATED, **forms.GATED_MLP_OF_ONE_STATE},
)
