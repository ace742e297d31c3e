"""Qwen3-MoE: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import GROUPED_HEADS, QUERY_KEY_NORMS, RMS_NORM
from mishformer_lens.patchers.mixture_like import forms as mixtures
from mishformer_lens.patchers.mixture_like.components import MIXTURE, PARTS
from mishformer_lens.patchers.parts import MLP, Experts

FAMILY = Family(
    name="qwen3_moe",
    base_model="Qwen3MoeModel",
    components=MIXTURE | QUERY_KEY_NORMS,
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="pos head", norms_in_turn=True),
    mlp=MLP(gated=True),
    experts=Experts(d_mlp="experts[0].intermediate_size"),
    optional=PARTS,
    first_release="4.51",
    template="mixture_like",
    prefix="Qwen3Moe",
    forms={**forms.LLAMA, **mixtures.ROUTER, **mixtures.EXPERTS, **mixtures.mixture("selected_experts")},
    module_forms=mixtures.MIXTURE_OF_MODULES,
)
