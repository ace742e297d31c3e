"""Cohere 2 (Command R7B, Command A): what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, parallel
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Block, Norm

FAMILY = Family(
    name="cohere2",
    base_model="Cohere2Model",
    components=COMPONENTS | {"ln2": "input_layernorm"},
    norm=Norm("layer", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    block=Block(parallel=True, shared_norm=True),
    first_release="4.48",
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
