"""GPT-NeoX with one attention class and attention functions, and no head mask."""

from mishformer_lens.patchers.gpt_neox import shared

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
UNSUPPORTED: dict[str, str] = {}

EDITS = {
    "eager_attention_forward": [
        (
            "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32)",
            "nn.functional.softmax(module.hook_attn_scores(attn_weights), dim=-1, dtype=torch.float32)",
        ),
        (
            "nn.functional.dropout(attn_weights, p=dropout, training=module.training)",
            "nn.functional.dropout(module.hook_pattern(attn_weights), p=dropout, training=module.training)",
        ),
    ],
    "GPTNeoXAttention.forward": [
        shared.PROJECT_IN,
        (
            "query_states, key_states, value_states = qkv.chunk(3, dim=-1)",
            """
            query_states, key_states, value_states = qkv.chunk(3, dim=-1)
            query_states = self.hook_q.heads_first(query_states)
            key_states = self.hook_k.heads_first(key_states)
            value_states = self.hook_v.heads_first(value_states)
            """,
        ),
        (
            "query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)",
            """
            query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
            query_states = self.hook_rot_q.heads_first(query_states)
            """,
        ),
        (
            """
            attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            """,
            """
            key_states = self.hook_rot_k.heads_first(key_states, copy=True)

            attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            attention_interface = self.attention_scores.choose(attention_interface, eager_attention_forward)
            """,
        ),
        ("attn_output.reshape(*input_shape, -1)", "self.hook_z(attn_output).reshape(*input_shape, -1)"),
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.LAYER,
    **shared.MODEL,
}
