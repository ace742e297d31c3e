"""Mistral, with a window in every layer."""

from tests.kinds import Counterpart, Kind, names

KINDS = {
    "mistral": Kind(
        "mistral",
        names("Mistral"),
        {"head_dim": 10, "sliding_window": 4},
        d_head=10,
        windows=(4, 4),
        in_transformer_lens=(Counterpart("2.15"),),
    ),
}
