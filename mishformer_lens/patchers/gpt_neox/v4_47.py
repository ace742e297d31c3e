"""GPT-NeoX with one attention class, and attention functions in its own module that do not see the attention."""

from mishformer_lens.patchers.gpt_neox import shared, v4_44, v4_45

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
UNSUPPORTED: dict[str, str] = {}

EDITS = {
    "eager_attention_forward": [
        (
            "nn.functional.softmax(attn_scores, dim=-1)",
            'nn.functional.softmax(_kwargs["attention_scores"].hook_attn_scores(attn_scores), dim=-1)',
        ),
        (
            "attn_weights.to(value.dtype)",
            '_kwargs["attention_scores"].hook_pattern(attn_weights.to(value.dtype))',
        ),
    ],
    "GPTNeoXAttention._attn_projections_and_rope": [
        shared.PROJECT_IN,
        v4_44.SPLIT_HEADS,
        v4_44.ROTATED_QUERY,
        v4_45.ROTATED_KEYS,
    ],
    "GPTNeoXAttention.forward": [
        (
            "GPTNEOX_ATTENTION_FUNCTION[attention_type]",
            "self.attention_scores.choose_by_type(GPTNEOX_ATTENTION_FUNCTION, attention_type, eager_attention_forward)",
        ),
        ("attn_output.contiguous()", "self.hook_z(attn_output.contiguous())"),
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.LAYER,
    **shared.MODEL,
}
