"""Olmo3, with biases, a window in the first layer, and rotations that are scaled as YaRN does."""

from tests.kinds import MODULES, YARN_ROPE, Counterpart, Kind, names, untied

KINDS = {
    "olmo3": Kind(
        "olmo3",
        names("Olmo3"),
        {
            "head_dim": 10,
            "attention_bias": True,
            **untied("Olmo3Config"),
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_scaling": YARN_ROPE,
        },
        d_head=10,
        norms="after",
        query_key_norm="joined",
        norms_in_turn=True,
        # Before, it knew no window, and its hook_attn_out and hook_mlp_out came before the norms.
        in_transformer_lens=(
            Counterpart(
                "3.9",
                # Newer releases have other angles in layers with windows, unless their base is this.
                {"attention_bias": False, "head_dim": 8, "rope_scaling": None, "rope_theta": 500000.0},
            ),
        ),
        modules={**MODULES, "ln1": "post_attention_layernorm", "ln2": "post_feedforward_layernorm"},
        windows=(4, None),
    ),
}
