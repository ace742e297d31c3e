"""GPT-NeoX (and Pythia): what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, DropIn, Norm

FAMILY = Family(
    name="gpt_neox",
    base_model="GPTNeoXModel",
    components={
        "blocks": "layers",
        "ln_final": "final_layer_norm",
        "attn": "attention",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=True, qkv_layout="head part d_head", head_size="head_size"),
    block=Block(parallel="use_parallel_residual"),
    drop_in=DropIn(
        embed="embed_in",
        qkv="attention.query_key_value",
        output="attention.dense",
        mlp_in="mlp.dense_h_to_4h",
        mlp_out="mlp.dense_4h_to_h",
        config={"act_fn": "hidden_act"},
        rotary=("rotary_pct", "rotary_emb_base"),
        models=tuple(
            f"stabilityai/stablelm-{kind}-alpha-{size}" for kind in ("base", "tuned") for size in ("3b", "7b")
        ),
        names={
            f"stablelm-{kind}-{size}": f"stabilityai/stablelm-{kind}-alpha-{size}"
            for kind in ("base", "tuned")
            for size in ("3b", "7b")
        },
    ),
)
