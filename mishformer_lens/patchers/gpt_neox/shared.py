"""Edits that many GPT-NeoX variants have in common."""

from mishformer_lens.engine import Edit

MLP = {
    "GPTNeoXMLP.forward": [
        ("self.act(hidden_states)", "self.hook_post(self.act(self.hook_pre(hidden_states)))"),
    ],
}

LAYER = {
    "GPTNeoXLayer.forward": [
        (
            "self.input_layernorm(hidden_states)",
            # The name is bound anew inside the call: all later readers see what the hook returned.
            "self.attention_inputs.normalize("
            "self.input_layernorm, hidden_states := self.hook_resid_pre(hidden_states))",
        ),
        (
            "self.post_attention_dropout(attn_output)",
            "self.hook_attn_out(self.post_attention_dropout(attn_output))",
        ),
        (
            "self.post_attention_layernorm(hidden_states)",
            "self.post_attention_layernorm(self.hook_mlp_in.copied(hidden_states))",
        ),
        (
            "self.post_attention_layernorm(attn_output)",
            "self.post_attention_layernorm(self.hook_mlp_in.copied(attn_output))",
        ),
        Edit("self.post_mlp_dropout(mlp_output)", "self.hook_mlp_out(self.post_mlp_dropout(mlp_output))", count=2),
        (
            "hidden_states = mlp_output + attn_output + hidden_states",
            "hidden_states = self.hook_resid_post(mlp_output + attn_output + hidden_states)",
        ),
        ("attn_output = attn_output + hidden_states", "attn_output = self.hook_resid_mid(attn_output + hidden_states)"),
        ("hidden_states = mlp_output + attn_output", "hidden_states = self.hook_resid_post(mlp_output + attn_output)"),
    ],
}

MODEL = {
    "GPTNeoXModel.forward": [
        ("self.emb_dropout(inputs_embeds)", "self.emb_dropout(self.hook_embed(inputs_embeds))"),
    ],
}

# The projections in and out, the same in every attention class and release.
PROJECT_IN = (
    "self.query_key_value(hidden_states)",
    "self.attention_inputs.project(self.query_key_value, hidden_states)",
)
PROJECT_OUT = ("self.dense(attn_output)", "self.head_results.project(self.dense, attn_output)")
