"""Qwen2-MoE, with a window, an expert for all tokens, and a second layer that has an MLP."""

from tests.kinds import Kind, names, source, windows

# Layers that have the window: the first ones, one in two; older releases count from the other end.
JOINED = "class Qwen2MoeExperts" in source("qwen2_moe")

KINDS = {
    "qwen2_moe": Kind(
        "qwen2_moe",
        names("Qwen2Moe"),
        {
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": int(JOINED),
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "mlp_only_layers": [1],
        },
        windows=windows("qwen2_moe", (4, None)),
        # Transformers 5 tells flash attention of no window.
        like_flash={"use_sliding_window": False} if JOINED else {},
        experts=4,
        d_expert=24,
        choices_add_up=False,
        shared_expert="shared_expert",
        d_shared=40,
        shared_first=JOINED,
        dense=(1,),
    ),
}
