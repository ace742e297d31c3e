"""Mixtral, with a sliding window."""

from tests.kinds import Kind, names, source, windows

# Older releases of TransformerLens look for experts that are modules.
SINCE = "3.9" if "class MixtralExperts" in source("mixtral") else "2.15"

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
