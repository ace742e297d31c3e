"""Mixtral, with a sliding window."""

from tests.kinds import Kind, names, windows

KINDS = {
    "mixtral": Kind(
        "mixtral",
        names("Mixtral"),
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5},
        windows=windows("mixtral", (5, 5)),
        experts=4,
        d_expert=48,
    ),
}
