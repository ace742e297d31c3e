"""Gemma2, with biases, a window in the first layer, and soft caps that are felt."""

from tests.kinds import MODULES, Counterpart, Kind, names

NAME = "google/gemma-2-2b"
CAPS = {"attn_scale": 24**0.5, "attn_scores_soft_cap": 3.0, "output_logits_soft_cap": 5.0}

KINDS = {
    "gemma2": Kind(
        "gemma2",
        names("Gemma2"),
        {
            "head_dim": 10,
            "attention_bias": True,
            "sliding_window": 4,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
        d_head=10,
        norms="both",
        modules={
            **MODULES,
            "ln1_post": "post_attention_layernorm",
            "ln2": "pre_feedforward_layernorm",
            "ln2_post": "post_feedforward_layernorm",
        },
        softcap=3.0,
        windows=(4, None),
        scaled_embedding=32**0.5,
        attention_scale=24**-0.5,
        in_transformer_lens=(
            Counterpart("2.15", {"attention_bias": False, "sliding_window": 64}, NAME, CAPS),
            Counterpart("3.9", {"attention_bias": False}, NAME, {**CAPS, "window_size": 4}),
        ),
    ),
}
