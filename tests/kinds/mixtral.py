"""Mixtral, with a sliding window."""

import importlib.metadata

from packaging.version import Version

from tests.kinds import Kind, names, windows

# 3.2 leaves the weights of the chosen experts as they are, which have to add up to one.
SINCE = "2.15" if Version(importlib.metadata.version("transformer-lens")) < Version("3") else None

KINDS = {
    "mixtral": Kind(
        "mixtral",
        names("Mixtral"),
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5},
        windows=windows("mixtral", (5, 5)),
        experts=4,
        d_expert=48,
        in_transformer_lens=SINCE,
        where_it_is_right={"sliding_window": None},
    ),
}
