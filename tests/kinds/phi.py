"""Phi: one norm before attention and MLP, part of each head rotated; with norms of queries and keys, and without."""

import dataclasses
import inspect

from transformers.models.phi import modeling_phi

from tests.kinds import Counterpart, Kind, names

PHI = Kind(
    "phi",
    names("Phi"),
    {"partial_rotary_factor": 0.5, "attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    parallel=True,
    shared_norm=True,
    gated=False,
    rotated=(4, 4),
    norm="layer",
    is_readable="partial_rotary_factor" in inspect.signature(modeling_phi.PhiConfig).parameters,
    modules={
        "ln1": "input_layernorm",
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "out": "self_attn.dense",
        "in": "mlp.fc1",
        "down": "mlp.fc2",
    },
)

KINDS = {
    "phi": dataclasses.replace(
        PHI,
        fields={**PHI.fields, "num_key_value_heads": 4},
        key_value_heads=4,
        in_transformer_lens=(Counterpart("2.15"),),
    ),
}
# Releases with an attention class per kernel normalise all heads at once by a norm for one, which fails.
if "PHI_ATTENTION_CLASSES" not in vars(modeling_phi):
    KINDS["phi_normed"] = dataclasses.replace(
        PHI, fields={**PHI.fields, "qk_layernorm": True}, query_key_norm="per head"
    )
