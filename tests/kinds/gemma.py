"""Gemma, with one head of keys and values, and biases."""

from tests.kinds import Counterpart, Kind, names

KINDS = {
    "gemma": Kind(
        "gemma",
        names("Gemma"),
        {"head_dim": 10, "attention_bias": True},
        key_value_heads=1,
        d_head=10,
        scaled_embedding=32**0.5,
        in_transformer_lens=(
            Counterpart(
                "2.15", {"attention_bias": False}, called="google/gemma-2b", template={"act_fn": "gelu_pytorch_tanh"}
            ),
        ),
    ),
}
