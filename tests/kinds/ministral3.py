"""Ministral3, with a window in every layer, and with queries that are scaled by their positions."""

from tests.kinds import YARN_ROPE, Kind, names

KINDS = {
    "ministral3": Kind(
        "ministral3",
        names("Ministral3"),
        {
            "head_dim": 10,
            "sliding_window": 5,
            "rope_parameters": {
                **YARN_ROPE,
                "rope_theta": 10000.0,
                # from the fifth position on
                "original_max_position_embeddings": 4,
                "llama_4_scaling_beta": 0.5,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
        d_head=10,
        windows=(5, 5),
    ),
}
