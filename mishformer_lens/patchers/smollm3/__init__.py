"""SmolLM3: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="smollm3",
    base_model="SmolLM3Model",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="4.53",
    drop_in=dataclasses.replace(DROP_IN, not_by_hand="some of its layers do not rotate queries and keys"),
    template="llama_like",
    prefix="SmolLM3",
    forms=forms.LLAMA,
)
