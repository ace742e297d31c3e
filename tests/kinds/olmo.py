"""Olmo, with biases, and with queries, keys and values that are clipped in place."""

from tests.kinds import Kind, names, untied

KINDS = {
    "olmo": Kind(
        "olmo",
        names("Olmo"),
        {"attention_bias": True, "clip_qkv": 1.0, **untied("OlmoConfig")},
        norm="layer",
    ),
}
