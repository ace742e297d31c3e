"""Cohere 2 (Command R7B, Command A): what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, parallel
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Block, Norm

FAMILY = Family(
    name="cohere2",
    base_model="Cohere2Model",
    components=COMPONENTS | {"ln2": "input_layernorm"},
    norm=Norm("layer", own=True, eps="variance_epsilon"),
    attention=dataclasses.replace(GROUPED_HEADS, adjacent_pairs=True),
    mlp=MLP(gated=True),
    block=Block(parallel=True, shared_norm=True),
    first_release="4.48",
    drop_in=dataclasses.replace(
        DROP_IN,
        not_by_hand="its layers without a window do not rotate queries and keys",
        logit_factor=("logit_scale", 1),
    ),
    template="llama_like",
    prefix="Cohere2",
    forms={
        **parallel.CENTRED_NORM,
        **forms.SPLIT_PROJECTIONS,
        **forms.GATED_MLP,
        **parallel.PARALLEL_LAYER,
        **forms.EMBEDDING,
    },
)
