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

# The parent class is the eager one, and has a causal mask of its own.
FALLBACK = """\
if self.attention_scores.is_active():
    self.attention_scores.warn()
    return super().forward(
        hidden_states=hidden_states,
        layer_past=layer_past,
        attention_mask=self.attention_scores.padding_mask(attention_mask, hidden_states.dtype),
        head_mask=head_mask,
        encoder_hidden_states=encoder_hidden_states,
        encoder_attention_mask=encoder_attention_mask,
        use_cache=use_cache,
        output_attentions=output_attentions,
    )

"""

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
        ("bsz, _, _ = hidden_states.size()", FALLBACK + "bsz, _, _ = hidden_states.size()"),
        shared.PROJECT_IN,
        SPLIT_HEADS,
        (
            "attn_output.reshape(bsz, query_length, self.num_heads * self.head_dim)",
            "self.hook_z(attn_output).reshape(bsz, query_length, self.num_heads * self.head_dim)",
        ),
        ("self.c_proj(attn_weights_reshaped)", "self.head_results.project(self.c_proj, attn_weights_reshaped)"),
    ],
    "GPT2SdpaAttention.forward": [
        ("bsz, q_len, _ = hidden_states.size()", FALLBACK + "bsz, q_len, _ = hidden_states.size()"),
        shared.PROJECT_IN,
        SPLIT_HEADS,
        (
            "attn_output.transpose(1, 2).contiguous()",
            "self.hook_z(attn_output.transpose(1, 2).contiguous())",
        ),
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.BLOCK,
    **shared.MODEL,
}
