"""Ministral, with a window in the first layer."""

from tests.kinds import Kind, names

KINDS = {
    "ministral": Kind(
        "ministral",
        names("Ministral"),
        {"head_dim": 10, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
        d_head=10,
        windows=(4, None),
    ),
}
