"""Edits that the OPT variants have in common."""

# Norms stand before attention and MLP, or after what these give was added to the residual stream.
LAYER = {
    "OPTDecoderLayer.forward": [
        # A statement that occurs twice at first: this edit takes one of them away.
        (
            """
            hidden_states = hidden_states.reshape(-1, hidden_states.size(-1))
            residual = hidden_states
            """,
            "residual = hidden_states = hidden_states.reshape(-1, hidden_states.size(-1))",
        ),
        ("residual = hidden_states", "residual = hidden_states = self.hook_resid_pre(hidden_states)"),
        (
            """
            if self.do_layer_norm_before:
                hidden_states = self.self_attn_layer_norm(hidden_states)
            """,
            """
            if self.do_layer_norm_before:
                hidden_states = self.attention_inputs.normalize(self.self_attn_layer_norm, hidden_states)
            else:
                hidden_states = self.attention_inputs.take(hidden_states)
            """,
        ),
        (
            "hidden_states = residual + hidden_states",
            "hidden_states = residual + self.hook_attn_out(hidden_states)",
        ),
        (
            "hidden_states_shape = hidden_states.shape",
            """
            hidden_states = self.hook_resid_mid(hidden_states)
            hidden_states_shape = hidden_states.shape
            """,
        ),
        # Norm and MLP get rows of all texts one after another. Hooks see the texts apart.
        (
            """
            if self.do_layer_norm_before:
                hidden_states = self.final_layer_norm(hidden_states)
            """,
            """
            hidden_states = self.hook_mlp_in.copied(hidden_states.view(hidden_states_shape))
            if self.do_layer_norm_before:
                hidden_states = self.final_layer_norm(hidden_states)
            hidden_states = hidden_states.view(residual.shape)
            """,
        ),
        (
            "self.activation_fn(hidden_states)",
            "self.hook_post(self.activation_fn(self.hook_pre(hidden_states.unflatten(0, hidden_states_shape[:-1]))))"
            ".flatten(0, 1)",
        ),
        (
            "(residual + hidden_states).view(hidden_states_shape)",
            "(residual + self.hook_mlp_out(hidden_states.view(hidden_states_shape)).view(residual.shape))"
            ".view(hidden_states_shape)",
        ),
        (
            """
            if not self.do_layer_norm_before:
                hidden_states = self.final_layer_norm(hidden_states)
            """,
            """
            if not self.do_layer_norm_before:
                hidden_states = self.final_layer_norm(hidden_states)
            hidden_states = self.hook_resid_post(hidden_states)
            """,
        ),
    ],
}


def model(pos_embeds: str) -> dict[str, list[tuple[str, str]]]:
    """The edits of a model that adds ``pos_embeds`` to the embeddings of tokens, which may be projected."""
    return {
        "OPTDecoder.forward": [
            (
                f"inputs_embeds + {pos_embeds}",
                f"self.hook_embed(inputs_embeds) + self.hook_pos_embed.for_batch({pos_embeds}, inputs_embeds.shape[0])",
            ),
        ],
    }


OUT = ("self.out_proj(attn_output)", "self.head_results.project(self.out_proj, attn_output)")

FLASH = [
    ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)"),
    (
        "attn_output.reshape(bsz, query_length, self.num_heads * self.head_dim)",
        "self.hook_z(attn_output).reshape(bsz, query_length, self.num_heads * self.head_dim)",
    ),
    ("self.out_proj(attn_weights_reshaped)", "self.head_results.project(self.out_proj, attn_weights_reshaped)"),
]

SDPA = [
    (
        "torch.nn.functional.scaled_dot_product_attention",
        "self.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
    ),
    ("attn_output.transpose(1, 2).contiguous()", "self.hook_z(attn_output.transpose(1, 2).contiguous())"),
    OUT,
]
