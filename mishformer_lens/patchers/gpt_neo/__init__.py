"""GPT-Neo (and TinyStories): what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, DropIn, Norm

FAMILY = Family(
    name="gpt_neo",
    base_model="GPTNeoModel",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        # Inside of a module that chooses between attention to all keys and to those in a window.
        "attn": "attn.attention",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_2",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, n_heads="num_heads"),
    learned_positions=True,
    drop_in=DropIn(
        embed="wte",
        pos_embed="wpe",
        qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        output="attn.attention.out_proj",
        mlp_in="mlp.c_fc",
        mlp_out="mlp.c_proj",
        config={"act_fn": "activation_function"},
        fixed={"use_attn_scale": False},
    ),
)
