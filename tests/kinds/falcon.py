"""Falcon: queries, keys and values in three layouts, blocks in four, rotated or with biases of scores by position."""

import dataclasses

from tests.kinds import Kind, names, source

MODULES = {
    "ln1": "input_layernorm",
    "qkv": "self_attention.query_key_value",
    "out": "self_attention.dense",
    "in": "mlp.dense_h_to_4h",
    "down": "mlp.dense_4h_to_h",
}
FIELDS = {
    "ffn_hidden_size": 48,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "bias": False,
    "new_decoder_architecture": False,
    "multi_query": True,
    "parallel_attn": True,
    "alibi": False,
    "tie_word_embeddings": True,
}

FALCON = Kind(
    "falcon",
    names("Falcon"),
    FIELDS,
    key_value_heads=1,
    parallel=True,
    shared_norm=True,
    gated=False,
    norm="layer",
    modules=MODULES,
)

# From 4.45 on eager attention finds the biases in its mask, too, and adds them twice.
TWICE = "elif head_mask is None:" not in source("falcon")

KINDS = {
    "falcon": FALCON,
    "falcon_grouped": dataclasses.replace(
        FALCON,
        fields={**FIELDS, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
        key_value_heads=2,
        fused="group",
        shared_norm=False,
        modules={**MODULES, "ln1": "ln_attn", "ln2": "ln_mlp"},
    ),
    "falcon_grouped_one_norm": dataclasses.replace(
        FALCON,
        fields={**FIELDS, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        key_value_heads=2,
        fused="group",
    ),
    "falcon_alibi": dataclasses.replace(
        FALCON,
        fields={**FIELDS, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
        key_value_heads=4,
        fused="group",
        parallel=False,
        shared_norm=False,
        rotary=False,
        alibi="first key",
        alibi_scale=8**-0.5 * (2 if TWICE else 1),
        eager_differs="eager attention adds this release's biases by position twice" if TWICE else "",
        modules={**MODULES, "ln2": "post_attention_layernorm"},
    ),
}
