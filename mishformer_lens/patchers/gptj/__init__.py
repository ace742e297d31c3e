"""GPT-J: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, DropIn, Norm

FAMILY = Family(
    name="gptj",
    base_model="GPTJModel",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "attn",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_1",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=True, n_heads="num_attention_heads", adjacent_pairs=True),
    block=Block(parallel=True, shared_norm=True),
    drop_in=DropIn(
        embed="wte",
        qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        output="attn.out_proj",
        mlp_in="mlp.fc_in",
        mlp_out="mlp.fc_out",
        config={"act_fn": "activation_function", "rotary_dim": "rotary_dim"},
        models=("EleutherAI/gpt-j-6B",),
        names={"gpt-j": "EleutherAI/gpt-j-6B", "gptj": "EleutherAI/gpt-j-6B"},
    ),
)
