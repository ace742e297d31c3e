"""Gemma2: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import (
    COMPONENTS,
    DROP_IN,
    GROUPED_HEADS,
    PRE_AND_POST_NORMS,
    RMS_NORM_FROM_ONE,
)
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="gemma2",
    base_model="Gemma2Model",
    components=COMPONENTS | PRE_AND_POST_NORMS,
    norm=RMS_NORM_FROM_ONE,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    drop_in=dataclasses.replace(
        DROP_IN,
        models=tuple(f"google/gemma-2-{size}b{kind}" for size in (2, 9, 27) for kind in ("", "-it")),
        config={"act_fn": "hidden_activation"},
        embedding_factor=("hidden_size", 0.5),
    ),
    template="llama_like",
    prefix="Gemma2",
    forms={**forms.GEMMA, **forms.PRE_AND_POST_NORM_LAYER},
    class_forms=forms.MULTIPLIED_EMBEDDING,
)
