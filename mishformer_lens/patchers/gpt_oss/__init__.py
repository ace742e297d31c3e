"""GPT-OSS: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP, Experts

FAMILY = Family(
    name="gpt_oss",
    base_model="GptOssModel",
    components={**COMPONENTS, "mlp.experts": "mlp.experts"},
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    experts=Experts(in_every_block=True),
    first_release="4.55",
    template="mixture_like",
    prefix="GptOss",
    forms={**forms.RMS_NORM, **forms.SPLIT_PROJECTIONS, **forms.PRE_NORM_LAYER, **forms.EMBEDDING},
)
