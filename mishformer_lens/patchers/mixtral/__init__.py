"""Mixtral: what its models have in every release."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.mixture_like import forms as mixtures
from mishformer_lens.patchers.mixture_like.components import MIXTURE
from mishformer_lens.patchers.parts import MLP, Experts

EXPERT: Edits = {
    "BlockSparseTop2MLP.forward": [
        (
            "self.act_fn(self.w1(hidden_states)) * self.w3(hidden_states)",
            "self.hook_post("
            "self.act_fn(self.hook_pre(self.w1(hidden_states))) * self.hook_pre_linear(self.w3(hidden_states)))",
        ),
    ],
}

FAMILY = Family(
    name="mixtral",
    base_model="MixtralModel",
    components=MIXTURE,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    experts=Experts(in_every_block=True, d_mlp="ffn_dim", as_modules={"mlp": "block_sparse_moe"}),
    template="mixture_like",
    prefix="Mixtral",
    forms={
        **forms.RMS_NORM,
        **forms.SPLIT_PROJECTIONS,
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
        **mixtures.ROUTER_OF_FLOATS,
        **mixtures.EXPERTS,
        **mixtures.mixture("top_k_index"),
    },
    class_forms=attention_classes.FLASH_REPEATED,
    module_forms={**mixtures.MIXTURE_OF_MODULES, **EXPERT},
)
