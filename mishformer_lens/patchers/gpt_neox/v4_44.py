"""GPT-NeoX with one attention class per implementation, which share projection and rotary embedding."""

from mishformer_lens.patchers.gpt_neox import shared

CACHE_ARGUMENT = "past_key_values"
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

FLASH = ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)")
SDPA = (
    "torch.nn.functional.scaled_dot_product_attention",
    "self.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
)
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
    "GPTNeoXFlashAttention2.forward": [FLASH, FLASH_Z, shared.PROJECT_OUT],
    "GPTNeoXSdpaAttention.forward": [SDPA, SDPA_Z, shared.PROJECT_OUT],
    **shared.MLP,
    **shared.LAYER,
    **shared.MODEL,
}
