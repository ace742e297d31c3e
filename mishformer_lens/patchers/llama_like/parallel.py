"""Forms, as in :mod:`.forms`, of layers in which attention and MLP read what one norm gives, and of Cohere's norm."""

from mishformer_lens.engine import Edits

# A layer norm without bias, of a class of the family's own.
CENTRED_NORM: Edits = {
    "LayerNorm.forward": [
        (
            "(hidden_states - mean) * torch.rsqrt(variance + self.variance_epsilon)",
            "self.norm_hooks.divided(hidden_states - mean, variance + self.variance_epsilon)",
        ),
        ("hidden_states.to(input_dtype)", "self.norm_hooks.normalized(hidden_states.to(input_dtype))"),
    ],
}

RESIDUAL_PRE = (
    "residual = hidden_states",
    """
    residual = hidden_states = self.hook_resid_pre(hidden_states)
    may_edit = self.shared_norm.may_edit()
    """,
)
BEFORE_ATTENTION = [
    RESIDUAL_PRE,
    ("self.input_layernorm(hidden_states)", "self.attention_inputs.normalize(self.input_layernorm, hidden_states)"),
]

# Layers in which attention and MLP read what one norm gives. `ln2` is what the MLP gets of it.
PARALLEL_LAYER: Edits = {
    "DecoderLayer.forward": [
        *BEFORE_ATTENTION,
        (
            "hidden_states_mlp = self.mlp(hidden_states)",
            """
            hidden_states_attention = self.hook_attn_out(hidden_states_attention)
            hidden_states_mlp = self.hook_mlp_out(
                self.mlp(self.shared_norm.for_mlp(self.input_layernorm, residual, hidden_states, may_edit))
            )
            """,
        ),
        (
            "residual + hidden_states_attention + hidden_states_mlp",
            "self.hook_resid_post(residual + hidden_states_attention + hidden_states_mlp)",
        ),
    ],
}
