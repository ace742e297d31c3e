"""GPT-2: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, DropIn, Norm

FAMILY = Family(
    name="gpt2",
    base_model="GPT2Model",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "attn",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_2",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, qkv_layout="part head d_head", n_heads="num_heads"),
    learned_positions=True,
    cross_attention={"cross_attn": "crossattention", "ln2": "ln_cross_attn", "ln3": "ln_2"},
    optional=("cross_attn",),
    drop_in=DropIn(
        embed="wte",
        pos_embed="wpe",
        qkv="attn.c_attn",
        output="attn.c_proj",
        mlp_in="mlp.c_fc",
        mlp_out="mlp.c_proj",
        config={
            "act_fn": "activation_function",
            "use_attn_scale": "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx",
        },
        dataset="openwebtext",
        models=("ai-forever/mGPT",),
    ),
)
