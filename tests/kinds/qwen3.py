"""Qwen3, with biases, a window in the second layer, and rotations that are scaled as YaRN does."""

from tests.kinds import YARN_ROPE, Counterpart, Kind, names, windows

KINDS = {
    "qwen3": Kind(
        "qwen3",
        names("Qwen3"),
        {
            "head_dim": 10,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
            "rope_scaling": YARN_ROPE,
        },
        d_head=10,
        query_key_norm="per head",
        norms_in_turn=True,
        windows=windows("qwen3", (None, 4)),
        in_transformer_lens=(
            Counterpart(
                "3.2",
                {"attention_bias": False, "use_sliding_window": False, "sliding_window": None, "rope_scaling": None},
            ),
        ),
    ),
}
