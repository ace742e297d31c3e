"""MPT: biases of scores by position, norms without biases; with clipped queries, keys and values and another scale."""

import dataclasses

from tests.kinds import Kind, names

MPT = Kind(
    "mpt",
    names("Mpt"),
    {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 64,
        "attn_config": {"attn_pdrop": 0, "alibi": True},
        "tie_word_embeddings": True,
    },
    key_value_heads=4,
    d_mlp=128,
    gated=False,
    rotary=False,
    norm="layer",
    alibi="last key",
    modules={
        "ln1": "norm_1",
        "ln2": "norm_2",
        "qkv": "attn.Wqkv",
        "out": "attn.out_proj",
        "in": "ffn.up_proj",
        "down": "ffn.down_proj",
    },
)

KINDS = {
    "mpt": MPT,
    "mpt_clipped": dataclasses.replace(
        MPT,
        fields={**MPT.fields, "attn_config": {"attn_pdrop": 0, "alibi": True, "clip_qkv": 2.0, "softmax_scale": 0.25}},
        attention_scale=0.25,
        clipped=2.0,
    ),
}
