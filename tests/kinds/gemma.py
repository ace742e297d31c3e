"""Gemma, with one head of keys and values, and biases."""

from tests.kinds import Kind, names

KINDS = {
    "gemma": Kind(
        "gemma",
        names("Gemma"),
        {"head_dim": 10, "attention_bias": True},
        key_value_heads=1,
        d_head=10,
        scaled_embedding=32**0.5,
    ),
}
