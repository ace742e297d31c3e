"""GPT-J with the attention functions of all models, and another name for the key-value cache."""

from mishformer_lens.patchers.gptj import shared

CACHE_ARGUMENT = "cache"
CACHE_BY_PLACE = False
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
UNSUPPORTED: dict[str, str] = {}

EDITS = {
    "eager_attention_forward": [
        (
            "nn.functional.softmax(attn_weights, dim=-1).to(value.dtype)",
            "module.hook_pattern(nn.functional.softmax(module.hook_attn_scores(attn_weights), dim=-1).to(value.dtype))",
        ),
    ],
    "GPTJAttention.forward": [
        *shared.PROJECTIONS,
        # Behind the cache, where the function is called, however it was looked up.
        (
            "attention_interface",
            "self.attention_call.around(attention_interface, eager_attention_forward)",
        ),
    ],
    **shared.MLP,
    **shared.block("attn_output"),
    **shared.MODEL,
}
