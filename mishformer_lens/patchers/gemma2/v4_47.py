"""Gemma2 with one attention class, and attention functions in its own module that get the attention as ``config``."""

import dataclasses

from mishformer_lens.patchers.gemma2 import FAMILY
from mishformer_lens.patchers.llama_like import forms, v4_44, v4_48

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = ("eager", "sdpa")
UNSUPPORTED = {
    "flash_attention_2": "transformers' own flash attention for Gemma2 asks for an attribute that nothing sets here",
    "flex_attention": "transformers refuses it for Gemma2 in this release, but where attentions are asked for",
}

EDITS = {
    **v4_48.edits(dataclasses.replace(FAMILY, forms={**FAMILY.forms, **forms.MULTIPLIED_EMBEDDING})),
    "Gemma2Attention.forward": [
        *FAMILY.forms["Attention.forward"],
        (
            "GEMMA2_ATTENTION_FUNCTION[attention_type]",
            """
            self.attention_call.around_own(
                {
                    "eager": eager_attention_forward,
                    "sdpa": sdpa_attention_forward,
                    "flash_attention_2": flash_attention_forward,
                    "flex_attention": flex_attention_forward,
                }[attention_type]
            )
            """,
        ),
    ],
    "eager_attention_forward": [
        (
            "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)",
            """
            config.hook_pattern(
                nn.functional.softmax(config.hook_attn_scores(attn_weights), dim=-1, dtype=torch.float32)
                .to(query.dtype)
            )
            """,
        ),
    ],
    "sdpa_attention_forward": [
        (
            "torch.nn.functional.scaled_dot_product_attention",
            "config.attention_scores.sdpa(torch.nn.functional.scaled_dot_product_attention)",
        ),
    ],
    "flex_attention_forward": [
        (
            "flex_attention",
            "config.attention_scores.flex(flex_attention, mask, config.attn_logit_softcapping)",
        ),
    ],
}
