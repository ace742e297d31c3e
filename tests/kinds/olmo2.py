"""Olmo2, with biases."""

from tests.kinds import MODULES, Kind, names, untied

KINDS = {
    "olmo2": Kind(
        "olmo2",
        names("Olmo2"),
        {
            "head_dim": 10,
            "attention_bias": True,
            **untied("Olmo2Config"),
        },
        d_head=10,
        norms="after",
        query_key_norm="joined",
        norms_in_turn=True,
        modules={**MODULES, "ln1": "post_attention_layernorm", "ln2": "post_feedforward_layernorm"},
    ),
}
