"""GLM-4: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms, fused
from mishformer_lens.patchers.parts import MLP, Attention, Norm

FAMILY = Family(
    name="glm4",
    base_model="Glm4Model",
    components={
        "blocks": "layers",
        "ln_final": "norm",
        "attn": "self_attn",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
        "ln1_post": "post_self_attn_layernorm",
        "ln2_post": "post_mlp_layernorm",
    },
    norm=Norm("rms", own=True),
    attention=Attention(
        rotary=True, n_heads="config.num_attention_heads", n_key_value_heads="config.num_key_value_heads"
    ),
    mlp=MLP(gated=True),
    first_release="4.51",
    template="llama_like",
    prefix="Glm4",
    forms={
        **forms.RMS_NORM,
        **forms.SPLIT_PROJECTIONS,
        **fused.FUSED_GATED_MLP,
        # What the norms after attention and MLP give is added as it is.
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
    },
)
