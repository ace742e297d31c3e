"""GLM-4: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, fused
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="glm4",
    base_model="Glm4Model",
    components=COMPONENTS | {"ln1_post": "post_self_attn_layernorm", "ln2_post": "post_mlp_layernorm"},
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, adjacent_pairs=True),
    mlp=MLP(gated=True),
    first_release="4.51",
    drop_in=dataclasses.replace(DROP_IN, mlp_in="mlp.gate_up_proj", mlp_gate=None),
    template="llama_like",
    prefix="Glm4",
    forms={
        **forms.RMS_NORM,
        **forms.SPLIT_PROJECTIONS,
        **fused.FUSED_GATED_MLP,
        # What the norms after attention and MLP give is added as it is.
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
    },
)
