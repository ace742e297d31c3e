"""Olmo: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="olmo",
    base_model="OlmoModel",
    components=COMPONENTS,
    norm=Norm("layer", own=True, eps=1e-5),
    attention=dataclasses.replace(GROUPED_HEADS, clipped="config.clip_qkv"),
    mlp=MLP(gated=True),
    drop_in=dataclasses.replace(
        DROP_IN,
        names={"olmo-1b": "allenai/OLMo-1B-hf", "olmo-7b": "allenai/OLMo-7B-hf"},
    ),
    template="llama_like",
    prefix="Olmo",
    forms={**forms.LLAMA_WITHOUT_NORM, **forms.LAYER_NORM_WITHOUT_WEIGHTS},
)
