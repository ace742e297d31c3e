"""MPT: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, DropIn, Norm

FAMILY = Family(
    name="mpt",
    base_model="MptModel",
    components={
        "blocks": "blocks",
        "ln_final": "norm_f",
        "attn": "attn",
        "mlp": "ffn",
        "ln1": "norm_1",
        "ln2": "norm_2",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, qkv_layout="part head d_head", n_heads="n_heads"),
    block=Block(written_inside=("mlp",)),
    drop_in=DropIn(
        embed="wte",
        qkv="attn.Wqkv",
        output="attn.out_proj",
        mlp_in="ffn.up_proj",
        mlp_out="ffn.down_proj",
        config={"n_ctx": "max_seq_len"},
        fixed={"act_fn": "gelu", "positional_embedding_type": "alibi"},
        counts_positions=True,
        not_by_hand="its scores have biases by position",
    ),
)
