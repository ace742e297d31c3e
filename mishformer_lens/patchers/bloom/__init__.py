"""BLOOM: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, Need, Norm

FAMILY = Family(
    name="bloom",
    base_model="BloomModel",
    components={
        "embed.ln": "word_embeddings_layernorm",
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "self_attention",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, qkv_layout="head part d_head", n_heads="num_heads"),
    block=Block(written_inside=("attn", "mlp")),
    needs={
        "slow_but_exact": Need(
            False, "slices of the weights take the place of the projections there, so that hooks would miss them"
        )
    },
)
