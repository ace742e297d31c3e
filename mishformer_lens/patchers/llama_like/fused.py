"""Forms, as in :mod:`.forms`, where one projection gives what several give elsewhere."""

from mishformer_lens.engine import Edits

OUT_OF_ONE_PROJECTION: Edits = {
    "Attention.forward": [
        ("self.qkv_proj(hidden_states)", "self.attention_inputs.project(self.qkv_proj, hidden_states)"),
        # Views of what it gives: a replacement has their strides.
        ("qkv[..., :query_pos]", "self.hook_q.joined(qkv[..., :query_pos], self.head_dim)"),
        (
            "qkv[..., query_pos : query_pos + self.num_key_value_heads * self.head_dim]",
            "self.hook_k.joined("
            "qkv[..., query_pos : query_pos + self.num_key_value_heads * self.head_dim], self.head_dim)",
        ),
        (
            "qkv[..., query_pos + self.num_key_value_heads * self.head_dim :]",
            "self.hook_v.joined(qkv[..., query_pos + self.num_key_value_heads * self.head_dim :], self.head_dim)",
        ),
        ("self.o_proj(attn_output)", "self.head_results.project(self.o_proj, attn_output)"),
    ],
}

# One projection gives the gate and what it multiplies.
FUSED_GATED_MLP: Edits = {
    "MLP.forward": [
        (
            "up_states = up_states * self.activation_fn(gate)",
            """
            gate = self.hook_pre(gate)
            up_states = self.hook_post(self.hook_pre_linear(up_states) * self.activation_fn(gate))
            """,
        ),
    ],
}
