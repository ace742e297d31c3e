"""GLM: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, fused
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Norm

FAMILY = Family(
    name="glm",
    base_model="GlmModel",
    components=COMPONENTS,
    norm=Norm("rms", own=True),
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    first_release="4.46",
    template="llama_like",
    prefix="Glm",
    forms={
        **forms.RMS_NORM,
        **forms.SPLIT_PROJECTIONS,
        **fused.FUSED_GATED_MLP,
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
    },
)
