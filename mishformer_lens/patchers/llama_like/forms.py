"""What stands in the sources of llama-like families, as edits by member, without the prefix of their class names.

A family's description chooses one form for each member. The forms hold in every release unless a family says otherwise.
"""

from mishformer_lens.engine import Edits

RMS_NORM: Edits = {
    "RMSNorm.forward": [
        (
            "hidden_states * torch.rsqrt(variance + self.variance_epsilon)",
            "self.norm_hooks.normalized(self.norm_hooks.divided(hidden_states, variance + self.variance_epsilon))",
        ),
    ],
}

INTO_HEADS = [
    ("self.q_proj(hidden_states)", "self.attention_inputs.query(self.q_proj, hidden_states)"),
    ("self.k_proj(hidden_states)", "self.attention_inputs.key(self.k_proj, hidden_states)"),
    ("self.v_proj(hidden_states)", "self.attention_inputs.value(self.v_proj, hidden_states)"),
]

SPLIT_PROJECTIONS: Edits = {
    "Attention.forward": [
        *INTO_HEADS,
        ("self.o_proj(attn_output)", "self.head_results.project(self.o_proj, attn_output)"),
    ],
}

GATED_MLP: Edits = {
    "MLP.forward": [
        (
            "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
            "self.hook_post(self.act_fn(self.hook_pre(self.gate_proj(x))) * self.hook_pre_linear(self.up_proj(x)))",
        ),
    ],
}

PRE_NORM_LAYER: Edits = {
    "DecoderLayer.forward": [
        # Statements that occur twice at first: the edit before takes one of them away.
        (
            """
            hidden_states = residual + hidden_states
            residual = hidden_states
            """,
            "residual = hidden_states = self.hook_resid_mid(residual + self.hook_attn_out(hidden_states))",
        ),
        ("residual = hidden_states", "residual = hidden_states = self.hook_resid_pre(hidden_states)"),
        (
            "hidden_states = residual + hidden_states",
            "hidden_states = self.hook_resid_post(residual + self.hook_mlp_out(hidden_states))",
        ),
        (
            "self.input_layernorm(hidden_states)",
            "self.attention_inputs.normalize(self.input_layernorm, hidden_states)",
        ),
        (
            "self.post_attention_layernorm(hidden_states)",
            "self.post_attention_layernorm(self.hook_mlp_in.copied(hidden_states))",
        ),
    ],
}

EMBEDDING: Edits = {
    "Model.forward": [("hidden_states = inputs_embeds", "hidden_states = self.hook_embed(inputs_embeds)")],
}
