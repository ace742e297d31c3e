"""Qwen3-MoE, with biases, a window, and a second layer that has an MLP."""

from tests.kinds import Kind, names, windows

KINDS = {
    "qwen3_moe": Kind(
        "qwen3_moe",
        names("Qwen3Moe"),
        {
            "head_dim": 10,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 0,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
        d_head=10,
        query_key_norm="per head",
        norms_in_turn=True,
        windows=windows("qwen3_moe", (4, 4)),
        experts=4,
        d_expert=24,
        dense=(1,),
    ),
}
