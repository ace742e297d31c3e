"""Llama: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP, Need

FAMILY = Family(
    name="llama",
    base_model="LlamaModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    needs={
        "pretraining_tp": Need(
            1,
            "releases up to 4.46 then run code that hook points are not in, and project by slices of the weights. To "
            "hook the model, set model.config.pretraining_tp to 1",
        ),
    },
    drop_in=DROP_IN,
    template="llama_like",
    prefix="Llama",
    forms=forms.LLAMA,
)
