"""Olmo3: what its models have in every release."""

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
    name="olmo3",
    base_model="Olmo3Model",
    components=COMPONENTS | POST_NORMS | QUERY_KEY_NORMS,
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="joined", norms_in_turn=True),
    mlp=MLP(gated=True),
    block=Block(norms="after"),
    first_release="4.57",
    # As TransformerBridge calls them.
    aliases={"ln1_post": "ln1", "ln2_post": "ln2"},
    drop_in=dataclasses.replace(
        DROP_IN,
        models=(
            "allenai/Olmo-3-7B-Instruct",
            "allenai/Olmo-3-7B-Think",
            "allenai/Olmo-3-32B-Think",
            "allenai/Olmo-3.1-32B-Instruct",
            "allenai/Olmo-3.1-32B-Think",
        ),
        not_by_hand="its layers with a window may rotate queries and keys by other frequencies",
    ),
    template="llama_like",
    prefix="Olmo3",
    forms={**forms.LLAMA, **forms.POST_NORM_LAYER},
)
