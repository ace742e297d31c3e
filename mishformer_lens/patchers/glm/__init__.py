"""GLM: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, fused
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="glm",
    base_model="GlmModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, adjacent_pairs=True),
    mlp=MLP(gated=True),
    first_release="4.46",
    drop_in=dataclasses.replace(DROP_IN, mlp_in="mlp.gate_up_proj", mlp_gate=None),
    template="llama_like",
    prefix="Glm",
    forms={
        **forms.RMS_NORM,
        **forms.SPLIT_PROJECTIONS,
        **fused.FUSED_GATED_MLP,
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
    },
)
