"""Gemma3's text model: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import (
    COMPONENTS,
    DROP_IN,
    GROUPED_HEADS,
    PRE_AND_POST_NORMS,
    QUERY_KEY_NORMS,
    RMS_NORM_FROM_ONE,
)
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="gemma3",
    base_model="Gemma3TextModel",
    components=COMPONENTS | PRE_AND_POST_NORMS | QUERY_KEY_NORMS,
    norm=RMS_NORM_FROM_ONE,
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="head pos"),
    mlp=MLP(gated=True),
    first_release="4.50",
    drop_in=dataclasses.replace(
        DROP_IN,
        models=(
            "google/gemma-3-270m",
            "google/gemma-3-270m-it",
            *(f"google/gemma-3-{size}b-{kind}" for size in (1, 4, 12, 27) for kind in ("pt", "it")),
            *(f"google/medgemma-{kind}" for kind in ("4b-pt", "4b-it", "27b-it", "27b-text-it")),
        ),
        not_by_hand="its layers with a window may rotate queries and keys by other frequencies",
        config={"act_fn": "hidden_activation"},
        embedding_factor=("hidden_size", 0.5),
    ),
    template="llama_like",
    prefix="Gemma3",
    forms={**forms.GEMMA, **forms.PRE_AND_POST_NORM_LAYER},
)
