"""Olmo2: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import (
    COMPONENTS,
    DROP_IN,
    GROUPED_HEADS,
    POST_NORMS,
    QUERY_KEY_NORMS,
    RMS_NORM,
)
from mishformer_lens.patchers.parts import MLP, Block

FAMILY = Family(
    name="olmo2",
    base_model="Olmo2Model",
    components=COMPONENTS | POST_NORMS | QUERY_KEY_NORMS,
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="joined", norms_in_turn=True),
    mlp=MLP(gated=True),
    block=Block(norms="after"),
    first_release="4.47",
    # As TransformerBridge calls them.
    aliases={"ln1_post": "ln1", "ln2_post": "ln2"},
    drop_in=dataclasses.replace(
        DROP_IN,
        names={"olmo-2-1b": "allenai/OLMo-2-0425-1B", "olmo-2-7b": "allenai/OLMo-2-1124-7B"},
    ),
    template="llama_like",
    prefix="Olmo2",
    forms={**forms.LLAMA, **forms.POST_NORM_LAYER},
)
