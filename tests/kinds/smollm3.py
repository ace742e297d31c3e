"""SmolLM3, with biases, a window in the first layer and no rotation in the second."""

from tests.kinds import Kind, names

KINDS = {
    "smollm3": Kind(
        "smollm3",
        names("SmolLM3"),
        {
            "head_dim": 10,
            "attention_bias": True,
            "mlp_bias": True,
            "no_rope_layers": [1, 0],
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        d_head=10,
        windows=(4, None),
    ),
}
