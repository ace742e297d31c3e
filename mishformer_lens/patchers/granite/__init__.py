"""Granite: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="granite",
    base_model="GraniteModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="4.45",
    drop_in=dataclasses.replace(
        DROP_IN,
        embedding_factor=("embedding_multiplier", 1),
        logit_factor=("logits_scaling", -1),
        output_factor=("residual_multiplier", 1),
    ),
    template="llama_like",
    prefix="Granite",
    forms={**forms.LLAMA, **forms.PRE_NORM_LAYER_WITH_FACTOR},
)
