"""Granite, with biases and all its multipliers."""

from tests.kinds import Kind, names

KINDS = {
    "granite": Kind(
        "granite",
        names("Granite"),
        {
            "attention_bias": True,
            "mlp_bias": True,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.7,
            "attention_multiplier": 0.2,
            "logits_scaling": 4.0,
        },
        scaled_embedding=3.0,
        attention_scale=0.2,
    ),
}
