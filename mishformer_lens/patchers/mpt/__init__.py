"""MPT: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, Norm

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
)
