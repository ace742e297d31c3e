"""Attention in llama-like sources that have a class for every kernel, as edits by member.

The forms of a family have its projections; what a family calls otherwise is an argument here, in its ``class_forms``.
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
FLASH = ("_flash_attention_forward", "self.attention_call.around_flash(_flash_attention_forward)")
# Some repeat keys for their flash kernel, too.
FLASH_REPEATED = [
    ROTATED,
    ("_flash_attention_forward", "self.attention_call.around_flash(_flash_attention_forward, rotated=True)"),
]

SOFTMAX = "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query_states.dtype)"
SOFTMAX_TO_VALUES = "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(value_states.dtype)"
SOFTMAX_DTYPE_FIRST = "nn.functional.softmax(attn_weights, dtype=torch.float32, dim=-1).to(query_states.dtype)"


def attention_classes(forms: Edits, softmax: str = SOFTMAX, flash_repeats: bool = False) -> Edits:
    """The edits of a family's three attention classes.

    Args:
        forms: the edits of its projections, under ``Attention.forward``.
        softmax: how it computes the pattern from the scores.
        flash_repeats: whether keys are repeated for all heads before flash attention gets them.
    """
    projections = forms["Attention.forward"]
    scores = softmax.replace("attn_weights", "self.hook_attn_scores(attn_weights)")
    return {
        "Attention.forward": [*projections, ROTATED, (softmax, f"self.hook_pattern({scores})"), Z],
        "SdpaAttention.forward": [*projections, ROTATED, SDPA, Z],
        "FlashAttention2.forward": [*projections, *(FLASH_REPEATED if flash_repeats else [FLASH])],
    }
