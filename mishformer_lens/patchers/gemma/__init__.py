"""Gemma: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM_FROM_ONE
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="gemma",
    base_model="GemmaModel",
    components=COMPONENTS,
    norm=RMS_NORM_FROM_ONE,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    drop_in=dataclasses.replace(
        DROP_IN,
        models=tuple(f"google/gemma-{size}b{kind}" for size in (2, 7) for kind in ("", "-it")),
        config={"act_fn": ("hidden_activation", "hidden_act")},
        embedding_factor=("hidden_size", 0.5),
    ),
    template="llama_like",
    prefix="Gemma",
    forms=forms.GEMMA,
    class_forms=forms.MULTIPLIED_EMBEDDING,
)
