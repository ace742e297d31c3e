"""Edits that many GPT-2 variants have in common."""

MLP = {
    "GPT2MLP.forward": [
        ("self.act(hidden_states)", "self.hook_post(self.act(self.hook_pre(hidden_states)))"),
    ],
}

BLOCK = {
    "GPT2Block.forward": [
        (
            """
            residual = hidden_states
            hidden_states = self.ln_1(hidden_states)
            """,
            """
            hidden_states = self.hook_resid_pre(hidden_states)
            residual = hidden_states
            hidden_states = self.attention_inputs.normalize(self.ln_1, hidden_states)
            """,
        ),
        ("attn_output + residual", "self.hook_attn_out(attn_output) + residual"),
        (
            """
            residual = hidden_states
            hidden_states = self.ln_2(hidden_states)
            """,
            """
            residual = self.hook_resid_mid(hidden_states)
            hidden_states = self.ln_2(self.hook_mlp_in.copied(residual))
            """,
        ),
        (
            "residual + feed_forward_hidden_states",
            "self.hook_resid_post(residual + self.hook_mlp_out(feed_forward_hidden_states))",
        ),
    ],
}

# The projections in and out, the same in every attention class and release.
PROJECT_IN = ("self.c_attn(hidden_states)", "self.attention_inputs.project(self.c_attn, hidden_states)")
PROJECT_OUT = ("self.c_proj(attn_output)", "self.head_results.project(self.c_proj, attn_output)")

# Scores and pattern, where the attention class computes them itself.
SCORES_AND_PATTERN = [
    (
        "nn.functional.softmax(attn_weights, dim=-1)",
        "nn.functional.softmax(self.hook_attn_scores(attn_weights), dim=-1)",
    ),
    ("self.attn_dropout(attn_weights)", "self.attn_dropout(self.hook_pattern(attn_weights))"),
]
