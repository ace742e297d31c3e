"""Qwen3: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS, QUERY_KEY_NORMS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="qwen3",
    base_model="Qwen3Model",
    components=COMPONENTS | QUERY_KEY_NORMS,
    norm=Norm("rms", own=True),
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="pos head", norms_in_turn=True),
    mlp=MLP(gated=True),
    first_release="4.51",
    template="llama_like",
    prefix="Qwen3",
    forms=forms.LLAMA,
)
