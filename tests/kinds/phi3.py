"""Phi-3: fused projections, a sliding window, part of each head rotated; and rotations that depend on the length."""

import inspect

import transformers

from tests.kinds import Counterpart, Kind, names, windows

# Releases that do not know it for Phi-3 rotate the whole head, but for what they share with other families.
_KNOWN = inspect.signature(transformers.Phi3Config).parameters.keys()
PARTIAL = {"partial_rotary_factor": 0.5} if _KNOWN & {"partial_rotary_factor", "rope_parameters"} else {}

FIELDS = {"attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
MODULES = {
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "qkv": "self_attn.qkv_proj",
    "out": "self_attn.o_proj",
    "gate_up": "mlp.gate_up_proj",
    "down": "mlp.down_proj",
}
LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
}

KINDS = {
    "phi3": Kind(
        "phi3",
        names("Phi3"),
        {**FIELDS, **PARTIAL, "sliding_window": 5, "tie_word_embeddings": True},
        windows=windows("phi3", (5, 5)),
        rotated=(4, 4) if PARTIAL else None,
        modules=MODULES,
        in_transformer_lens=(
            Counterpart("2.15", {**dict.fromkeys(PARTIAL, 1.0), "sliding_window": None}),
            Counterpart("3.9", dict.fromkeys(PARTIAL, 1.0)),
        ),
    ),
    # Longer texts than 8 positions are rotated otherwise than shorter ones.
    "phi3_longrope": Kind(
        "phi3",
        names("Phi3"),
        {
            **FIELDS,
            "num_key_value_heads": 4,
            "sliding_window": None,
            "rope_scaling": LONG,
            "original_max_position_embeddings": 8,
        },
        key_value_heads=4,
        modules=MODULES,
    ),
}
