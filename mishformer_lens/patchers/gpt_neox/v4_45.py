"""GPT-NeoX with one attention class per implementation that share projection and rotary embedding, and cache objects."""

from mishformer_lens.patchers.gpt_neox import shared

ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {
    "flex_attention": "these releases of transformers have no flex attention for GPT-NeoX",
}

SPLIT_HEADS = (
    """
    query = qkv[..., : self.head_size].permute(0, 2, 1, 3)
    key = qkv[..., self.head_size : 2 * self.head_size].permute(0, 2, 1, 3)
    value = qkv[..., 2 * self.head_size :].permute(0, 2, 1, 3)
    """,
    """
    query = self.hook_q.heads_first(qkv[..., : self.head_size].permute(0, 2, 1, 3))
    key = self.hook_k.heads_first(qkv[..., self.head_size : 2 * self.head_size].permute(0, 2, 1, 3))
    value = self.hook_v.heads_first(qkv[..., 2 * self.head_size :].permute(0, 2, 1, 3))
    """,
)

ROTATED_QUERY = (
    "torch.cat((query, query_pass), dim=-1)",
    "self.hook_rot_q.heads_first(torch.cat((query, query_pass), dim=-1))",
)

SCORES_AND_PATTERN = [
    ("nn.functional.softmax(attn_scores, dim=-1)", "nn.functional.softmax(self.hook_attn_scores(attn_scores), dim=-1)"),
    ("attn_weights.to(value.dtype)", "self.hook_pattern(attn_weights.to(value.dtype))"),
]

FALLBACK = """
    if self.attention_scores.is_wanted():
        self.attention_scores.warn()
        return super().forward(
            hidden_states=hidden_states,
            attention_mask=self.attention_scores.padding_mask(attention_mask, hidden_states.dtype),
            position_ids=position_ids,
            head_mask=head_mask,
            layer_past=layer_past,
            use_cache=use_cache,
            output_attentions=output_attentions,
            cache_position=cache_position,
            position_embeddings=position_embeddings,
        )
"""

EDITS = {
    "GPTNeoXAttention._attn_projections_and_rope": [
        shared.PROJECT_IN,
        SPLIT_HEADS,
        ROTATED_QUERY,
        (
            "return query, key, value, layer_past",
            "return query, self.hook_rot_k.heads_first(key, copy=True), value, layer_past",
        ),
    ],
    "GPTNeoXAttention._attn": SCORES_AND_PATTERN,
    "GPTNeoXAttention.forward": [
        (
            "self._merge_heads(attn_output, self.num_attention_heads, self.head_size)",
            "self._merge_heads(self.hook_z.heads_first(attn_output), self.num_attention_heads, self.head_size)",
        ),
        shared.PROJECT_OUT,
    ],
    "GPTNeoXFlashAttention2.forward": [
        (
            """
            query, key, value, present = self._attn_projections_and_rope(
                hidden_states=hidden_states,
                position_ids=position_ids,
                layer_past=layer_past,
                use_cache=use_cache,
                cache_position=cache_position,
                position_embeddings=position_embeddings,
            )
            """,
            FALLBACK
            + """
    query, key, value, present = self._attn_projections_and_rope(
        hidden_states=hidden_states,
        position_ids=position_ids,
        layer_past=layer_past,
        use_cache=use_cache,
        cache_position=cache_position,
        position_embeddings=position_embeddings,
    )
    """,
        ),
        (
            "attn_output = attn_weights.reshape("
            "attn_weights.shape[0], attn_weights.shape[1], self.num_attention_heads * self.head_size)",
            "attn_output = self.hook_z(attn_weights).reshape("
            "attn_weights.shape[0], attn_weights.shape[1], self.num_attention_heads * self.head_size)",
        ),
        shared.PROJECT_OUT,
    ],
    "GPTNeoXSdpaAttention.forward": [
        ("bsz, q_len, _ = hidden_states.size()", FALLBACK + "    bsz, q_len, _ = hidden_states.size()"),
        ("attn_output.transpose(1, 2).contiguous()", "self.hook_z(attn_output.transpose(1, 2).contiguous())"),
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.LAYER,
    **shared.MODEL,
}
