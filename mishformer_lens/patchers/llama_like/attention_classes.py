"""Attention in llama-like sources that have a class for every kernel, as edits by member.

The forms of a family have its projections. Where it differs in ``pattern`` and ``flash``, its ``class_forms`` choose.
"""

from mishformer_lens.engine import Edits

# Before keys are repeated for all heads of queries, so that hooks see their own heads. The cache holds the keys.
ROTATED = (
    "key_states = repeat_kv(key_states, self.num_key_value_groups)",
    """
    query_states = self.hook_rot_q.heads_first(query_states)
    key_states = repeat_kv(self.hook_rot_k.heads_first(key_states, copy=True), self.num_key_value_groups)
    """,
)
Z = ("attn_output.transpose(1, 2).contiguous()", "self.hook_z(attn_output.transpose(1, 2).contiguous())")
SDPA = (
    "torch.nn.functional.scaled_dot_product_attention",
    "self.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
)


def _pattern(arguments: str, dtype_of: str) -> Edits:
    """Hooks on scores and pattern, where softmax has these arguments and its result gets the dtype of another."""
    return {
        "pattern": [
            (
                f"nn.functional.softmax(attn_weights, {arguments}).to({dtype_of}.dtype)",
                f"""
                self.hook_pattern(
                    nn.functional.softmax(self.hook_attn_scores(attn_weights), {arguments})
                    .to({dtype_of}.dtype)
                )
                """,
            ),
        ],
    }


PATTERN = _pattern("dim=-1, dtype=torch.float32", "query_states")
PATTERN_LIKE_VALUES = _pattern("dim=-1, dtype=torch.float32", "value_states")
PATTERN_DTYPE_FIRST = _pattern("dtype=torch.float32, dim=-1", "query_states")

FLASH: Edits = {
    "flash": [("_flash_attention_forward", "self.attention_call.around_flash(_flash_attention_forward)")],
}
# Where keys are repeated for flash attention, too.
FLASH_REPEATED: Edits = {
    "flash": [
        ROTATED,
        ("_flash_attention_forward", "self.attention_call.around_flash(_flash_attention_forward, rotated=True)"),
    ],
}


def attention_classes(forms: Edits) -> Edits:
    """The edits of a family's three attention classes.

    Args:
        forms: the edits of its projections, under ``Attention.forward``, and of what else differs between families:
            of where it computes the pattern, and of its flash attention.
    """
    projections = forms["Attention.forward"]
    return {
        "Attention.forward": [*projections, ROTATED, *forms["pattern"], Z],
        "SdpaAttention.forward": [*projections, ROTATED, SDPA, Z],
        "FlashAttention2.forward": [*projections, *forms["flash"]],
    }
