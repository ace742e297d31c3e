"""OPT: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, DropIn, Norm

FAMILY = Family(
    name="opt",
    base_model="OPTDecoder",
    components={
        "blocks": "layers",
        "ln_final": "final_layer_norm",
        "attn": "self_attn",
        # Two projections of the block itself.
        "mlp": "",
        "ln1": "self_attn_layer_norm",
        "ln2": "final_layer_norm",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, n_heads="num_heads"),
    learned_positions=True,
    block=Block(norms_before="do_layer_norm_before"),
    # Models with norms in the residual stream have none behind it.
    optional=("ln_final",),
    drop_in=DropIn(
        embed="embed_tokens",
        pos_embed="embed_positions",
        first_position=2,
        counts_positions=True,
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        output="self_attn.out_proj",
        mlp_in="fc1",
        mlp_out="fc2",
        config={"act_fn": "activation_function", "initializer_range": "init_std"},
        models=tuple(f"facebook/opt-{size}" for size in ("125m", "1.3b", "2.7b", "6.7b", "13b", "30b", "66b")),
        names={
            "opt": "facebook/opt-125m",
            "opt-small": "facebook/opt-125m",
            "opt-medium": "facebook/opt-1.3b",
            "opt-large": "facebook/opt-2.7b",
            "opt-xl": "facebook/opt-6.7b",
            "opt-xxl": "facebook/opt-13b",
            "opt-xxxl": "facebook/opt-30b",
            "opt-xxxxl": "facebook/opt-66b",
        },
    ),
)
