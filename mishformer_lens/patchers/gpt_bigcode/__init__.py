"""GPT-BigCode (SantaCoder, StarCoder): what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import PART_BY_PART, Attention, DropIn, Norm

FAMILY = Family(
    name="gpt_bigcode",
    base_model="GPTBigCodeModel",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "attn",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_2",
    },
    norm=Norm("layer", own=False),
    # One key and one value for all heads.
    attention=Attention(
        rotary=False,
        qkv_layout=PART_BY_PART,
        n_heads="num_heads",
        n_key_value_heads="kv_heads",
        configured_keys=1,
    ),
    learned_positions=True,
    models=(
        (
            {"multi_query": False},
            {"attention.qkv_layout": "head part d_head", "attention.n_key_value_heads": None},
        ),
    ),
    drop_in=DropIn(
        embed="wte",
        pos_embed="wpe",
        qkv="attn.c_attn",
        output="attn.c_proj",
        mlp_in="mlp.c_fc",
        mlp_out="mlp.c_proj",
        config={"act_fn": "activation_function", "use_attn_scale": "scale_attn_weights"},
    ),
)
