"""GPT-2 with one attention class per implementation, each with a forward of its own."""

from mishformer_lens.patchers.gpt2 import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {
    "flex_attention": "these releases of transformers have no flex attention for GPT-2",
}

SPLIT_HEADS = (
    """
    query = self._split_heads(query, self.num_heads, self.head_dim)
    key = self._split_heads(key, self.num_heads, self.head_dim)
    value = self._split_heads(value, self.num_heads, self.head_dim)
    """,
    """
    query = self.hook_q.heads_first(self._split_heads(query, self.num_heads, self.head_dim))
    key = self.hook_k.heads_first(self._split_heads(key, self.num_heads, self.head_dim))
    value = self.hook_v.heads_first(self._split_heads(value, self.num_heads, self.head_dim))
    """,
)

FLASH = ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)")
SDPA = (
    "torch.nn.functional.scaled_dot_product_attention",
    "self.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
)

EDITS = {
    "GPT2Attention._attn": shared.SCORES_AND_PATTERN,
    "GPT2Attention._upcast_and_reordered_attn": shared.SCORES_AND_PATTERN,
    "GPT2Attention.forward": [
        shared.PROJECT_IN,
        SPLIT_HEADS,
        (
            "self._merge_heads(attn_output, self.num_heads, self.head_dim)",
            "self._merge_heads(self.hook_z.heads_first(attn_output), self.num_heads, self.head_dim)",
        ),
        shared.PROJECT_OUT,
    ],
    "GPT2FlashAttention2.forward": [
        shared.PROJECT_IN,
        SPLIT_HEADS,
        FLASH,
        (
            "attn_output.reshape(bsz, query_length, self.num_heads * self.head_dim)",
            "self.hook_z(attn_output).reshape(bsz, query_length, self.num_heads * self.head_dim)",
        ),
        ("self.c_proj(attn_weights_reshaped)", "self.head_results.project(self.c_proj, attn_weights_reshaped)"),
    ],
    "GPT2SdpaAttention.forward": [
        shared.PROJECT_IN,
        SPLIT_HEADS,
        SDPA,
        (
            "attn_output.transpose(1, 2).contiguous()",
            "self.hook_z(attn_output.transpose(1, 2).contiguous())",
        ),
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.block("attn_output"),
    **shared.MODEL,
}
