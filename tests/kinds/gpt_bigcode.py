"""GPT-BigCode: learned positions; one key and value for all heads, and a key and value for each."""

import dataclasses

from tests.kinds import Kind, names, source

_SOURCE = source("gpt_bigcode")

GPT_BIGCODE = Kind(
    "gpt_bigcode",
    names("GPTBigCode"),
    {
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 64,
        "n_inner": 48,
        "multi_query": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
    },
    key_value_heads=1,
    gated=False,
    rotary=False,
    learned_positions=True,
    # Releases from 4.54 on multiply by the root of the width of a head, where older ones divide by it.
    attention_scale=8**0.5 if "self.head_dim**0.5 if config" in _SOURCE else None,
    norm="layer",
    modules={
        "ln1": "ln_1",
        "ln2": "ln_2",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "in": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
)

KINDS = {
    "gpt_bigcode": GPT_BIGCODE,
    "gpt_bigcode_each_key": dataclasses.replace(
        GPT_BIGCODE,
        fields={**GPT_BIGCODE.fields, "multi_query": False, "scale_attn_weights": False},
        key_value_heads=4,
        fused="group",
        attention_scale=1.0,
        # With a class per kernel, flash attention scales whatever the configuration says.
        like_flash={"scale_attn_weights": True} if "GPTBigCodeFlashAttention2" in _SOURCE else {},
    ),
}
