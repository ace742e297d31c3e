"""GLM: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, fused
from mishformer_lens.patchers.parts import MLP, Attention, Norm

FAMILY = Family(
    name="glm",
    base_model="GlmModel",
    components={
        "blocks": "layers",
        "ln_final": "norm",
        "attn": "self_attn",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    norm=Norm("rms", own=True),
    attention=Attention(
        rotary=True, n_heads="config.num_attention_heads", n_key_value_heads="config.num_key_value_heads"
    ),
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
