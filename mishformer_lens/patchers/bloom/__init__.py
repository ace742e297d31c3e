"""BLOOM: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, DropIn, Need, Norm

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
    models=(
        (
            {"apply_residual_connection_post_layernorm": True},
            {"drop_in.other_form": "a residual stream that goes on from what comes of its norms"},
        ),
    ),
    drop_in=DropIn(
        embed="word_embeddings",
        qkv="self_attention.query_key_value",
        output="self_attention.dense",
        mlp_in="mlp.dense_h_to_4h",
        mlp_out="mlp.dense_4h_to_h",
        config={},
        # Its configuration knows no longest text; this is what TransformerLens says.
        fixed={"act_fn": "gelu_fast", "n_ctx": 2048, "positional_embedding_type": "alibi"},
        counts_positions=True,
        not_by_hand="its scores have biases by position",
        prepend_bos=False,
        names={
            "bloom-560m": "bigscience/bloom-560m",
            "bloom-1b1": "bigscience/bloom-1b1",
            "bloom-1b7": "bigscience/bloom-1b7",
            "bloom-3b": "bigscience/bloom-3b",
            "bloom-7b1": "bigscience/bloom-7b1",
        },
    ),
)
