"""Qwen3: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, QUERY_KEY_NORMS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="qwen3",
    base_model="Qwen3Model",
    components=COMPONENTS | QUERY_KEY_NORMS,
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="pos head", norms_in_turn=True),
    mlp=MLP(gated=True),
    first_release="4.51",
    drop_in=dataclasses.replace(
        DROP_IN,
        models=(*(f"Qwen/Qwen3-{size}B" for size in ("0.6", "1.7", "4", "8", "14")), "Qwen/Qwen3-0.6B-Base"),
        prepend_bos=False,
    ),
    template="llama_like",
    prefix="Qwen3",
    forms=forms.LLAMA,
)
