"""Cohere (Command R): what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, parallel
from mishformer_lens.patchers.llama_like.components import DROP_IN, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Block, Norm

FAMILY = Family(
    name="cohere",
    base_model="CohereModel",
    components={
        "blocks": "layers",
        "ln_final": "norm",
        "attn": "self_attn",
        "attn.q_norm": "self_attn.q_norm",
        "attn.k_norm": "self_attn.k_norm",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "input_layernorm",
    },
    norm=Norm("layer", own=True, eps="variance_epsilon"),
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="pos head", adjacent_pairs=True),
    mlp=MLP(gated=True),
    block=Block(parallel=True, shared_norm=True),
    optional=("attn.q_norm", "attn.k_norm"),
    drop_in=dataclasses.replace(DROP_IN, logit_factor=("logit_scale", 1)),
    template="llama_like",
    prefix="Cohere",
    forms={
        **parallel.CENTRED_NORM,
        **forms.SPLIT_PROJECTIONS,
        **forms.GATED_MLP,
        **parallel.PARALLEL_LAYER,
        **forms.EMBEDDING,
    },
)
