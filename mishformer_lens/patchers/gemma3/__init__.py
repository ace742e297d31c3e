"""Gemma3's text model: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import (
    COMPONENTS,
    GROUPED_HEADS,
    PRE_AND_POST_NORMS,
    QUERY_KEY_NORMS,
)
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="gemma3",
    base_model="Gemma3TextModel",
    components=COMPONENTS | PRE_AND_POST_NORMS | QUERY_KEY_NORMS,
    norm=Norm("rms", own=True),
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="head pos"),
    mlp=MLP(gated=True),
    first_release="4.50",
    template="llama_like",
    prefix="Gemma3",
    forms={**forms.GEMMA, **forms.PRE_AND_POST_NORM_LAYER},
)
