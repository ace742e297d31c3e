"""GPT-BigCode with one attention class per implementation; keys and values are one tensor there.

With one key for all heads, queries are joined, and scores have positions before heads. With a key for each head, heads
come first.
"""

from mishformer_lens.patchers.gpt_bigcode import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {
    "flex_attention": "no release of transformers has flex attention for GPT-BigCode",
}

# Before the cache.
PROJECTED = (
    """
    if layer_past is not None:
        key_value = torch.cat((layer_past, key_value), dim=-2)
    """,
    """
    new_key, new_value = key_value.split((self.head_dim, self.head_dim), dim=-1)
    if self.multi_query:
        query = self.hook_q.joined(query, self.head_dim)
        hooked_key = self.hook_k.joined(new_key, self.head_dim)
        hooked_value = self.hook_v.joined(new_value, self.head_dim)
    else:
        query = self.hook_q.heads_first(query)
        hooked_key = self.hook_k.heads_first(new_key)
        hooked_value = self.hook_v.heads_first(new_value)
    if not (hooked_key is new_key and hooked_value is new_value):
        key_value = torch.cat((hooked_key, hooked_value), dim=-1)
    if layer_past is not None:
        key_value = torch.cat((layer_past, key_value), dim=-2)
    """,
)


def _by_head(hook: str, activation: str) -> str:
    """The call of a hook point whose activation has its heads in one of two places."""
    return f"(self.{hook}.heads_first if self.multi_query else self.{hook})({activation})"


def project_out(z: str) -> tuple[str, str]:
    """The projection of the attention's output, from what is called ``z``."""
    return (
        f"self.c_proj({z})",
        f"self.head_results.project(self.c_proj, self.hook_z.joined({z}, self.head_dim))",
    )


EAGER = [
    # What these two compute, with hooks in it: compiled functions take none.
    (
        "upcast_softmax(attn_weights, unscale, softmax_dtype)",
        f"""
        (
            torch.nn.functional.softmax(
                {_by_head("hook_attn_scores", "attn_weights.to(softmax_dtype) * unscale")}, dim=-1
            ).to(dtype)
            if self.hook_attn_scores.listening
            else upcast_softmax(attn_weights, unscale, softmax_dtype)
        )
        """,
    ),
    (
        "upcast_masked_softmax(attn_weights, attention_mask, mask_value, unscale, softmax_dtype)",
        f"""
        (
            torch.nn.functional.softmax(
                {
            _by_head(
                "hook_attn_scores",
                "torch.where(attention_mask, attn_weights.to(softmax_dtype) * unscale, mask_value)",
            )
        },
                dim=-1,
            ).to(dtype)
            if self.hook_attn_scores.listening
            else upcast_masked_softmax(attn_weights, attention_mask, mask_value, unscale, softmax_dtype)
        )
        """,
    ),
    (
        "attn_weights = torch.nn.functional.softmax(attn_weights, dim=-1)",
        f"attn_weights = torch.nn.functional.softmax({_by_head('hook_attn_scores', 'attn_weights')}, dim=-1)",
    ),
    ("self.attn_dropout(attn_weights)", f"self.attn_dropout({_by_head('hook_pattern', 'attn_weights')})"),
]

EDITS = {
    "GPTBigCodeAttention._attn": EAGER,
    "GPTBigCodeAttention.forward": [shared.PROJECT_IN, PROJECTED, project_out("attn_output")],
    "GPTBigCodeFlashAttention2.forward": [
        shared.PROJECT_IN,
        PROJECTED,
        ("_flash_attention_forward", "self.attention_scores.flash(_flash_attention_forward)"),
        project_out("attn_weights_reshaped"),
    ],
    "GPTBigCodeSdpaAttention._attn": [
        (
            "torch.nn.functional.scaled_dot_product_attention",
            "self.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
        ),
    ],
    "GPTBigCodeSdpaAttention.forward": [shared.PROJECT_IN, PROJECTED, project_out("attn_output")],
    **shared.AROUND,
}
