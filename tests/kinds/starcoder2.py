"""StarCoder2: torch's layer norms, an MLP without gate, biases, a sliding window."""

from tests.kinds import MODULES, Kind, names, windows

KINDS = {
    "starcoder2": Kind(
        "starcoder2",
        names("Starcoder2"),
        {
            "use_bias": True,
            "sliding_window": 4,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
            "tie_word_embeddings": True,
        },
        gated=False,
        norm="layer",
        windows=windows("starcoder2", (4, 4)),
        modules={
            **{role: path for role, path in MODULES.items() if role not in ("gate", "up")},
            "in": "mlp.c_fc",
            "down": "mlp.c_proj",
        },
    ),
}
