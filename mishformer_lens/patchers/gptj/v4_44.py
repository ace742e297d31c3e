"""GPT-J with one attention class per implementation, each with a forward of its own."""

from mishformer_lens.patchers.gpt2.shared import SCORES_AND_PATTERN
from mishformer_lens.patchers.gptj import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager", "flash_attention_2")
UNSUPPORTED = {
    "sdpa": "these releases of transformers have no sdpa for GPT-J",
    "flex_attention": "these releases of transformers have no flex attention for GPT-J",
}

ATTENTION_CLASSES = {
    "GPTJAttention._attn": [
        # Keys of all positions, behind the cache.
        (
            "query = query.to(torch.float32)",
            """
            query = self.hook_rot_q.heads_first(query)
            key = self.hook_rot_k.heads_first(key, copy=True)
            query = query.to(torch.float32)
            """,
        ),
        *SCORES_AND_PATTERN,
    ],
    "GPTJAttention.forward": [
        *shared.PROJECTIONS,
        (
            "self._merge_heads(attn_output, self.num_attention_heads, self.head_dim)",
            "self._merge_heads(self.hook_z.heads_first(attn_output), self.num_attention_heads, self.head_dim)",
        ),
    ],
    "GPTJFlashAttention2.forward": [
        *shared.PROJECTIONS,
        (
            "key = key.permute(0, 2, 1, 3).contiguous()",
            """
            query = self.hook_rot_q.heads_first(query)
            key = self.hook_rot_k.heads_first(key, copy=True).permute(0, 2, 1, 3).contiguous()
            """,
        ),
        ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)"),
        (
            """
            attn_weights.reshape(
                attn_weights.shape[0], attn_weights.shape[1], attn_weights.shape[2] * attn_weights.shape[3]
            )
            """,
            """
            self.hook_z(attn_weights).reshape(
                attn_weights.shape[0], attn_weights.shape[1], attn_weights.shape[2] * attn_weights.shape[3]
            )
            """,
        ),
    ],
}

EDITS = {
    **ATTENTION_CLASSES,
    **shared.MLP,
    **shared.block("attn_output"),
    **shared.MODEL,
}
