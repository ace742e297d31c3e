"""Llama: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP

FAMILY = Family(
    name="llama",
    base_model="LlamaModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    # Otherwise releases up to 4.46 project by slices of the weights.
    needs={"pretraining_tp": 1},
    drop_in=DROP_IN,
    template="llama_like",
    prefix="Llama",
    forms=forms.LLAMA,
)
