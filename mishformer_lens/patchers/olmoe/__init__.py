"""OLMoE: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import GROUPED_HEADS, QUERY_KEY_NORMS, RMS_NORM
from mishformer_lens.patchers.mixture_like import forms as mixtures
from mishformer_lens.patchers.mixture_like.components import MIXTURE
from mishformer_lens.patchers.parts import MLP, Experts

FAMILY = Family(
    name="olmoe",
    base_model="OlmoeModel",
    components=MIXTURE | QUERY_KEY_NORMS,
    norm=RMS_NORM,
    attention=dataclasses.replace(
        GROUPED_HEADS, query_key_norm="joined", norms_in_turn=True, clipped="config.clip_qkv"
    ),
    mlp=MLP(gated=True),
    experts=Experts(in_every_block=True, d_mlp="experts[0].intermediate_size"),
    first_release="4.45",
    template="mixture_like",
    prefix="Olmoe",
    forms={**forms.LLAMA, **mixtures.ROUTER, **mixtures.EXPERTS, **mixtures.mixture("top_k_index")},
    module_forms=mixtures.MIXTURE_OF_MODULES,
)
