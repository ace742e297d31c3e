"""Falcon: what its models have in every release. The description is that of the 7B, which the others differ from."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import GROUP_BY_GROUP, PART_BY_PART, Attention, Block, DropIn, Norm

FAMILY = Family(
    name="falcon",
    base_model="FalconModel",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "self_attention",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    norm=Norm("layer", own=False),
    # One key and one value for all heads.
    attention=Attention(
        rotary=True,
        qkv_layout=PART_BY_PART,
        n_heads="num_heads",
        n_key_value_heads="num_kv_heads",
        configured_keys=1,
    ),
    # Parallel blocks have one norm, or two of other names.
    block=Block(parallel="parallel_attn", shared_norm=True),
    optional=("ln2",),
    models=(
        # The 40B, 180B and 11B.
        (
            {"new_decoder_architecture": True},
            {"attention.qkv_layout": GROUP_BY_GROUP, "attention.configured_keys": "num_kv_heads"},
        ),
        (
            {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2},
            {"components.ln1": "ln_attn", "components.ln2": "ln_mlp"},
        ),
        # Those trained on RefinedWeb alone.
        (
            {"new_decoder_architecture": False, "multi_query": False},
            {"attention.qkv_layout": "head part d_head", "attention.n_key_value_heads": None},
        ),
        (
            {"alibi": True},
            {
                "attention.rotary": False,
                "drop_in.fixed": {"positional_embedding_type": "alibi"},
                "drop_in.rotary": None,
                "drop_in.not_by_hand": "its scores have biases by position",
            },
        ),
    ),
    drop_in=DropIn(
        embed="word_embeddings",
        qkv="self_attention.query_key_value",
        output="self_attention.dense",
        mlp_in="mlp.dense_h_to_4h",
        mlp_out="mlp.dense_4h_to_h",
        config={"act_fn": "activation"},
        rotary=("partial_rotary_factor", "rope_theta"),
    ),
)
