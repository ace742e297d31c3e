"""BLOOM, whose attention and MLP add what they write to the residual stream themselves."""

from mishformer_lens.patchers.kernels import only_eager

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = False
ATTENTION = ("eager",)
UNSUPPORTED = only_eager("BLOOM")


def written(hook: str, output: str) -> tuple[str, str]:
    """The edit of a part that adds ``output`` to the residual stream."""
    return (
        f"dropout_add({output}, residual, self.hidden_dropout, self.training)",
        f"residual + self.{hook}(F.dropout({output}, p=self.hidden_dropout, training=self.training))",
    )


EDITS = {
    # Nothing is edited in it, but what it computes is written out where it is called.
    "dropout_add": [],
    "BloomAttention._reshape": [
        (
            f"fused_qkv[..., {part}, :].transpose(1, 2)",
            f"self.{hook}.heads_first(fused_qkv[..., {part}, :].transpose(1, 2))",
        )
        for part, hook in enumerate(("hook_q", "hook_k", "hook_v"))
    ],
    "BloomAttention.forward": [
        (
            "self.query_key_value(hidden_states)",
            "self.attention_inputs.project(self.query_key_value, hidden_states)",
        ),
        (
            "F.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query_layer.dtype)",
            """
            self.hook_pattern(
                F.softmax(self.hook_attn_scores(attn_weights), dim=-1, dtype=torch.float32).to(query_layer.dtype)
            )
            """,
        ),
        ("self._merge_heads(context_layer)", "self.hook_z.joined(self._merge_heads(context_layer), self.head_dim)"),
        ("self.dense(context_layer)", "self.head_results.project(self.dense, context_layer)"),
        written("hook_attn_out", "output_tensor"),
    ],
    "BloomMLP.forward": [
        (
            "self.gelu_impl(self.dense_h_to_4h(hidden_states))",
            "self.hook_post(self.gelu_impl(self.hook_pre(self.dense_h_to_4h(hidden_states))))",
        ),
        written("hook_mlp_out", "intermediate_output"),
    ],
    "BloomBlock.forward": [
        (
            "layernorm_output = self.input_layernorm(hidden_states)",
            """
            hidden_states = self.hook_resid_pre(hidden_states)
            layernorm_output = self.attention_inputs.normalize(self.input_layernorm, hidden_states)
            """,
        ),
        # The residual stream goes on from what comes of a norm, or from what goes into it. What hooks make of a copy
        # for attention or MLP alone is not in it: the norm runs once more for the stream.
        (
            """
            if self.apply_residual_connection_post_layernorm:
                residual = layernorm_output
            else:
                residual = hidden_states
            """,
            """
            if not self.apply_residual_connection_post_layernorm:
                residual = hidden_states
            elif layernorm_output is hidden_states:
                residual = self.input_layernorm(hidden_states)
            else:
                residual = layernorm_output
            """,
        ),
        (
            "layernorm_output = self.post_attention_layernorm(attention_output)",
            """
            attention_output = self.hook_resid_mid(attention_output)
            mlp_input = self.hook_mlp_in.copied(attention_output)
            layernorm_output = self.post_attention_layernorm(mlp_input)
            """,
        ),
        (
            """
            if self.apply_residual_connection_post_layernorm:
                residual = layernorm_output
            else:
                residual = attention_output
            """,
            """
            if not self.apply_residual_connection_post_layernorm:
                residual = attention_output
            elif mlp_input is attention_output:
                residual = layernorm_output
            else:
                residual = self.post_attention_layernorm(attention_output)
            """,
        ),
        ("self.mlp(layernorm_output, residual)", "self.hook_resid_post(self.mlp(layernorm_output, residual))"),
    ],
    "BloomModel.forward": [
        (
            "self.word_embeddings_layernorm(inputs_embeds)",
            "self.hook_embed(self.word_embeddings_layernorm(inputs_embeds))",
        ),
    ],
}
