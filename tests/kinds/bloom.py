"""BLOOM: biases of scores by position, a norm behind the embedding; the residual stream by norms, and through them."""

import dataclasses

from tests.kinds import Kind, names

BLOOM = Kind(
    "bloom",
    names("Bloom"),
    {"n_head": 4, "n_layer": 2, "attention_dropout": 0.0, "hidden_dropout": 0.0, "tie_word_embeddings": True},
    key_value_heads=4,
    d_mlp=128,
    fused="group",
    gated=False,
    rotary=False,
    norm="layer",
    alibi="first key",
    embedding_norm="word_embeddings_layernorm",
    modules={
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
        "qkv": "self_attention.query_key_value",
        "out": "self_attention.dense",
        "in": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
)

KINDS = {
    "bloom": BLOOM,
    "bloom_stream_from_norms": dataclasses.replace(
        BLOOM, fields={**BLOOM.fields, "apply_residual_connection_post_layernorm": True}, stream_from_norms=True
    ),
}
