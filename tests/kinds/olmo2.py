"""Olmo2, with biases."""

from tests.kinds import MODULES, Kind, head_dim, names, untied

D_HEAD = head_dim("olmo2", 10)

KINDS = {
    "olmo2": Kind(
        "olmo2",
        names("Olmo2"),
        {
            "head_dim": D_HEAD,
            "attention_bias": True,
            **untied("Olmo2Config"),
        },
        d_head=D_HEAD,
        norms="after",
        query_key_norm="joined",
        norms_in_turn=True,
        modules={**MODULES, "ln1": "post_attention_layernorm", "ln2": "post_feedforward_layernorm"},
    ),
}
