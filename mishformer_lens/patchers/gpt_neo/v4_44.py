"""GPT-Neo with one attention class per implementation, each with a forward of its own."""

from mishformer_lens.patchers.gpt2 import shared as gpt2
from mishformer_lens.patchers.llama_like.forms import INTO_HEADS

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager", "flash_attention_2")
UNSUPPORTED = {
    "sdpa": "no release of transformers has sdpa for GPT-Neo",
    "flex_attention": "no release of transformers has flex attention for GPT-Neo",
}

EDITS = {
    "GPTNeoSelfAttention._attn": gpt2.SCORES_AND_PATTERN,
    "GPTNeoSelfAttention.forward": [
        *INTO_HEADS,
        (
            "self._merge_heads(attn_output, self.num_heads, self.head_dim)",
            "self._merge_heads(self.hook_z.heads_first(attn_output), self.num_heads, self.head_dim)",
        ),
        ("self.out_proj(attn_output)", "self.head_results.project(self.out_proj, attn_output)"),
    ],
    "GPTNeoFlashAttention2.forward": [
        *INTO_HEADS,
        ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)"),
        (
            "attn_output.reshape(bsz, query_length, self.num_heads * self.head_dim)",
            "self.hook_z(attn_output).reshape(bsz, query_length, self.num_heads * self.head_dim)",
        ),
        ("self.out_proj(attn_weights_reshaped)", "self.head_results.project(self.out_proj, attn_weights_reshaped)"),
    ],
    "GPTNeoMLP.forward": gpt2.MLP["GPT2MLP.forward"],
    "GPTNeoBlock.forward": gpt2.BLOCK["GPT2Block.forward"],
    "GPTNeoModel.forward": gpt2.MODEL["GPT2Model.forward"],
}
