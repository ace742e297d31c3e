"""OPT: learned positions, an MLP that is no module, queries that are scaled before they are split into heads.

Two forms: norms before attention and MLP, as in OPT-125m, and in the residual stream, as in OPT-350m, whose token
embedding is projected to the model's width and back. Some checkpoints of the first have no norm behind their blocks.
"""

import dataclasses

from tests.kinds import Counterpart, Kind, names

OPT = Kind(
    "opt",
    {**names("OPT"), "base": "OPTDecoder"},
    {
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
    },
    key_value_heads=4,
    gated=False,
    rotary=False,
    learned_positions=True,
    norm="layer",
    modules={
        "ln1": "self_attn_layer_norm",
        "ln2": "final_layer_norm",
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "out": "self_attn.out_proj",
        "in": "fc1",
        "down": "fc2",
    },
)
KINDS = {
    "opt": dataclasses.replace(OPT, in_transformer_lens=(Counterpart("2.15"),)),
    "opt_350m": dataclasses.replace(
        OPT,
        fields={**OPT.fields, "do_layer_norm_before": False, "word_embed_proj_dim": 24},
        norms="stream",
        final_norm=False,
        embed_width=24,
    ),
    "opt_without_final_norm": dataclasses.replace(
        OPT, fields={**OPT.fields, "_remove_final_layer_norm": True}, final_norm=False
    ),
}
