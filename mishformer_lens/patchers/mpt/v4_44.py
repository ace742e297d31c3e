"""MPT, whose MLP adds what it writes to the residual stream itself."""

from mishformer_lens.patchers.kernels import only_eager

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager",)
UNSUPPORTED = only_eager("MPT")

EDITS = {
    "MptAttention.forward": [
        # Before they are clipped, where they are.
        (
            "mixed_qkv = self.Wqkv(hidden_states)",
            """
            mixed_qkv = self.attention_inputs.project(self.Wqkv, hidden_states)
            projected = mixed_qkv.chunk(3, dim=2)
            query_states = self.hook_q.joined(projected[0], self.head_dim)
            key_states = self.hook_k.joined(projected[1], self.head_dim)
            value_states = self.hook_v.joined(projected[2], self.head_dim)
            if not (query_states is projected[0] and key_states is projected[1] and value_states is projected[2]):
                mixed_qkv = torch.cat([query_states, key_states, value_states], dim=2)
            """,
        ),
        (
            "nn.functional.softmax(attention_scores.float(), dim=-1).to(value_states.dtype)",
            """
            self.hook_pattern(
                nn.functional.softmax(self.hook_attn_scores(attention_scores).float(), dim=-1).to(value_states.dtype)
            )
            """,
        ),
        (
            "context_states.permute(0, 2, 1, 3).contiguous().view(batch_size, seq_length, -1)",
            """
            self.hook_z.joined(
                context_states.permute(0, 2, 1, 3).contiguous().view(batch_size, seq_length, -1), self.head_dim
            )
            """,
        ),
        ("self.out_proj(context_states)", "self.head_results.project(self.out_proj, context_states)"),
    ],
    "MptMLP.forward": [
        (
            "self.act(self.up_proj(hidden_states))",
            "self.hook_post(self.act(self.hook_pre(self.up_proj(hidden_states))))",
        ),
        ("output + residual", "self.hook_mlp_out(output) + residual"),
    ],
    "MptBlock.forward": [
        (
            "layernorm_output = self.norm_1(hidden_states)",
            """
            hidden_states = self.hook_resid_pre(hidden_states)
            layernorm_output = self.attention_inputs.normalize(self.norm_1, hidden_states)
            """,
        ),
        (
            "self.resid_attn_dropout(attn_outputs) + residual",
            "self.hook_resid_mid(self.hook_attn_out(self.resid_attn_dropout(attn_outputs)) + residual)",
        ),
        ("self.norm_2(hidden_states)", "self.norm_2(self.hook_mlp_in.copied(hidden_states))"),
        ("self.ffn(layernorm_output, residual)", "self.hook_resid_post(self.ffn(layernorm_output, residual))"),
    ],
    "MptModel.forward": [
        ("hidden_states = inputs_embeds", "hidden_states = self.hook_embed(inputs_embeds)"),
    ],
}
