"""Qwen2-MoE: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.mixture_like import forms as mixtures
from mishformer_lens.patchers.mixture_like.components import MIXTURE, PARTS
from mishformer_lens.patchers.parts import MLP, Experts

FAMILY = Family(
    name="qwen2_moe",
    base_model="Qwen2MoeModel",
    components=MIXTURE | {"mlp.shared_expert": "mlp.shared_expert"},
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    experts=Experts(shared_first=True, d_mlp="experts[0].intermediate_size"),
    optional=(*PARTS, "mlp.shared_expert"),
    template="mixture_like",
    prefix="Qwen2Moe",
    forms={**forms.LLAMA, **mixtures.ROUTER, **mixtures.EXPERTS, **mixtures.mixture("selected_experts")},
    class_forms=attention_classes.FLASH_REPEATED,
    module_forms=mixtures.MIXTURE_OF_MODULES,
)
