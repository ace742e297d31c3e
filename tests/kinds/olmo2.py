"""Olmo2, with biases."""

from tests.kinds import MODULES, Counterpart, Kind, head_dim, names, untied

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
        # Before, its hook_attn_out and hook_mlp_out came before the norms.
        in_transformer_lens=(
            Counterpart(
                "3.9",
                {"attention_bias": False, "head_dim": 8, "num_key_value_heads": 4},
                "allenai/OLMo-2-1124-7B",
                {"n_key_value_heads": None, "rotary_base": 10000.0, "eps": 1e-5},
            ),
        ),
        modules={**MODULES, "ln1": "post_attention_layernorm", "ln2": "post_feedforward_layernorm"},
    ),
}
