"""GPT-NeoX with one attention class per implementation, which share projection and rotary embedding."""

from mishformer_lens.patchers.gpt_neox import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
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

EAGER_FORWARD = [
    (
        "self._merge_heads(attn_output, self.num_attention_heads, self.head_size)",
        "self._merge_heads(self.hook_z.heads_first(attn_output), self.num_attention_heads, self.head_size)",
    ),
    shared.PROJECT_OUT,
]

PROJECT_AND_ROTATE = """\
query, key, value, present = self._attn_projections_and_rope(
    hidden_states=hidden_states,
    position_ids=position_ids,
    layer_past=layer_past,
    use_cache=use_cache,
)
"""

# The parent class is the eager one, and has a causal mask of its own.
FALLBACK = """\
if self.attention_scores.is_active():
    self.attention_scores.warn()
    return super().forward(
        hidden_states=hidden_states,
        attention_mask=self.attention_scores.four_axes(attention_mask, hidden_states.dtype),
        position_ids=position_ids,
        head_mask=head_mask,
        layer_past=layer_past,
        use_cache=use_cache,
        output_attentions=output_attentions,
    )

"""

FLASH_Z = (
    "attn_weights.reshape(attn_weights.shape[0], attn_weights.shape[1], self.num_attention_heads * self.head_size)",
    "self.hook_z(attn_weights)"
    ".reshape(attn_weights.shape[0], attn_weights.shape[1], self.num_attention_heads * self.head_size)",
)
SDPA_Z = ("attn_output.transpose(1, 2).contiguous()", "self.hook_z(attn_output.transpose(1, 2).contiguous())")

EDITS = {
    "GPTNeoXAttention._attn_projections_and_rope": [
        shared.PROJECT_IN,
        SPLIT_HEADS,
        ROTATED_QUERY,
        (
            "return query, key, value, present",
            "return query, self.hook_rot_k.heads_first(key, copy=True), value, present",
        ),
    ],
    "GPTNeoXAttention._attn": SCORES_AND_PATTERN,
    "GPTNeoXAttention.forward": EAGER_FORWARD,
    "GPTNeoXFlashAttention2.forward": [
        (PROJECT_AND_ROTATE, FALLBACK + PROJECT_AND_ROTATE),
        FLASH_Z,
        shared.PROJECT_OUT,
    ],
    "GPTNeoXSdpaAttention.forward": [
        (PROJECT_AND_ROTATE, FALLBACK + PROJECT_AND_ROTATE),
        SDPA_Z,
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.LAYER,
    **shared.MODEL,
}
