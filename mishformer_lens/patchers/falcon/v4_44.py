"""Falcon, whose eager attention calls torch's fused kernel itself; flash attention has a class of its own."""

from mishformer_lens.engine import Edit

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {
    "flex_attention": "no release of transformers has flex attention for Falcon",
    "flash_attention_2 with alibi": "transformers refuses to run Falcon with biases by position under flash attention",
}

# Behind the cache. Where keys are repeated for the queries that share them, hooks see each once.
ROTATED = """
if alibi is None:
    query_layer = self.hook_rot_q.heads_first(query_layer)
    sharing = key_layer.shape[1] // self.num_kv_heads
    rotated_keys = key_layer[:, ::sharing]
    hooked_keys = self.hook_rot_k.heads_first(rotated_keys, copy=True)
    if hooked_keys is not rotated_keys:
        key_layer = hooked_keys.repeat_interleave(sharing, 1)
"""

PROJECT_IN = (
    "self.query_key_value(hidden_states)",
    "self.attention_inputs.project(self.query_key_value, hidden_states)",
)


def project_out(z: str) -> tuple[str, str]:
    """The projection of the attention's output, from what is called ``z``."""
    return (
        f"self.dense({z})",
        f"self.head_results.project(self.dense, self.hook_z.joined({z}, self.head_dim))",
    )


def pattern(scores: str) -> tuple[str, str]:
    """Scores and pattern, where masked ``scores`` are normalised."""
    return (
        f"F.softmax({scores} + attention_mask, dim=-1, dtype=hidden_states.dtype)",
        f"""
        self.hook_pattern(
            F.softmax(self.hook_attn_scores({scores} + attention_mask), dim=-1, dtype=hidden_states.dtype)
        )
        """,
    )


EDITS = {
    "FalconAttention._split_heads": [
        # Groups of heads that share a key, which is repeated for each of them.
        (
            """
            key = torch.broadcast_to(key, query.shape)
            value = torch.broadcast_to(value, query.shape)
            """,
            """
            query = self.hook_q(query.flatten(2, 3)).unflatten(2, (self.num_kv_heads, -1))
            key = torch.broadcast_to(self.hook_k(key.flatten(2, 3)).unflatten(2, (-1, 1)), query.shape)
            value = torch.broadcast_to(self.hook_v(value.flatten(2, 3)).unflatten(2, (-1, 1)), query.shape)
            """,
        ),
        # A key for each head.
        (
            "return fused_qkv[..., 0, :], fused_qkv[..., 1, :], fused_qkv[..., 2, :]",
            """
            return (
                self.hook_q(fused_qkv[..., 0, :]),
                self.hook_k(fused_qkv[..., 1, :]),
                self.hook_v(fused_qkv[..., 2, :]),
            )
            """,
        ),
        # One for all.
        (
            "return fused_qkv[..., :-2, :], fused_qkv[..., [-2], :], fused_qkv[..., [-1], :]",
            """
            return (
                self.hook_q(fused_qkv[..., :-2, :]),
                self.hook_k(fused_qkv[..., [-2], :]),
                self.hook_v(fused_qkv[..., [-1], :]),
            )
            """,
        ),
    ],
    "FalconAttention.forward": [
        PROJECT_IN,
        ("kv_length = key_layer.shape[-2]", f"kv_length = key_layer.shape[-2]{ROTATED}"),
        Edit(
            "torch.nn.functional.scaled_dot_product_attention",
            "self.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
            count=2,
        ),
        pattern("attention_scores"),
        pattern("attention_logits"),
        Edit(*project_out("attn_output"), count=3),
    ],
    "FalconFlashAttention2.forward": [
        PROJECT_IN,
        (
            "query_layer = query_layer.transpose(1, 2)",
            f"{ROTATED}query_layer = query_layer.transpose(1, 2)",
        ),
        ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)"),
        project_out("attn_weights"),
    ],
    "FalconMLP.forward": [
        ("self.act(self.dense_h_to_4h(x))", "self.hook_post(self.act(self.hook_pre(self.dense_h_to_4h(x))))"),
    ],
    # Nothing is edited in it, but what it computes is written out where blocks that are not parallel call it.
    "dropout_add": [],
    "FalconDecoderLayer.forward": [
        ("residual = hidden_states", "residual = hidden_states = self.hook_resid_pre(hidden_states)"),
        ("self.ln_attn(hidden_states)", "self.attention_inputs.normalize(self.ln_attn, hidden_states)"),
        (
            "attention_layernorm_out = self.input_layernorm(hidden_states)",
            """
            parallel = self.config.new_decoder_architecture or self.config.parallel_attn
            may_edit = parallel and self.shared_norm.may_edit()
            attention_layernorm_out = self.attention_inputs.normalize(self.input_layernorm, hidden_states)
            """,
        ),
        # Later, where the MLP's side begins.
        ("mlp_layernorm_out = self.ln_mlp(hidden_states)", ""),
        (
            """
            if not self.config.new_decoder_architecture:
                if self.config.parallel_attn:
                    mlp_layernorm_out = attention_layernorm_out
                else:
                    residual = dropout_add(
                        attention_output, residual, self.config.attention_dropout, training=self.training
                    )
                    mlp_layernorm_out = self.post_attention_layernorm(residual)
            """,
            """
            if self.config.new_decoder_architecture or self.config.parallel_attn:
                attention_output = self.hook_attn_out(attention_output)
            if self.config.new_decoder_architecture:
                if self.config.num_ln_in_parallel_attn == 2:
                    mlp_layernorm_out = self.ln_mlp(self.hook_mlp_in.copied(hidden_states))
            elif self.config.parallel_attn:
                mlp_layernorm_out = self.shared_norm.for_mlp(
                    self.input_layernorm, residual, attention_layernorm_out, may_edit
                )
            else:
                residual = self.hook_resid_mid(
                    residual
                    + self.hook_attn_out(
                        F.dropout(attention_output, p=self.config.attention_dropout, training=self.training)
                    )
                )
                mlp_layernorm_out = self.post_attention_layernorm(self.hook_mlp_in.copied(residual))
            """,
        ),
        (
            "mlp_layernorm_out = attention_layernorm_out",
            """
            mlp_layernorm_out = self.shared_norm.for_mlp(
                self.input_layernorm, residual, attention_layernorm_out, may_edit
            )
            """,
        ),
        # Not in place: observers keep what the MLP gave.
        ("mlp_output += attention_output", "mlp_output = self.hook_mlp_out(mlp_output) + attention_output"),
        (
            "output = dropout_add(mlp_output, residual, self.config.hidden_dropout, training=self.training)",
            """
            if self.config.new_decoder_architecture or self.config.parallel_attn:
                output = dropout_add(mlp_output, residual, self.config.hidden_dropout, training=self.training)
            else:
                output = residual + self.hook_mlp_out(
                    F.dropout(mlp_output, p=self.config.hidden_dropout, training=self.training)
                )
            output = self.hook_resid_post(output)
            """,
        ),
    ],
    "FalconModel.forward": [
        ("hidden_states = inputs_embeds", "hidden_states = self.hook_embed(inputs_embeds)"),
    ],
}
