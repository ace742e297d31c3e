"""OPT with one attention class per implementation, whose eager attention folds the heads into the batch."""

from mishformer_lens.engine import Edit
from mishformer_lens.patchers.llama_like.forms import INTO_HEADS
from mishformer_lens.patchers.opt import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = True
ATTENTION = ("eager", "flash_attention_2")
UNSUPPORTED = {
    "sdpa": "these releases of transformers have no sdpa for OPT",
    "flex_attention": "these releases of transformers have no flex attention for OPT",
}

_QUERY, *_KEY_AND_VALUE = INTO_HEADS
# Keys and values are projected in one of two branches, with a cache and without.
PROJECTIONS = [_QUERY, *(Edit(before, after, count=2) for before, after in _KEY_AND_VALUE)]

_SCORES = "self.hook_attn_scores(attn_weights.unflatten(0, (-1, self.num_heads)))"

EAGER_AND_FLASH = {
    "OPTAttention.forward": [
        *PROJECTIONS,
        (
            "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(torch.float16)",
            f"""
            self.hook_pattern(
                nn.functional.softmax({_SCORES}, dim=-1, dtype=torch.float32).to(torch.float16)
            ).flatten(0, 1)
            """,
        ),
        (
            "nn.functional.softmax(attn_weights, dim=-1)",
            f"self.hook_pattern(nn.functional.softmax({_SCORES}, dim=-1)).flatten(0, 1)",
        ),
        (
            "attn_output.reshape(bsz, tgt_len, self.embed_dim)",
            "self.hook_z(attn_output).reshape(bsz, tgt_len, self.embed_dim)",
        ),
        shared.OUT,
    ],
    "OptFlashAttention2.forward": [*PROJECTIONS, *shared.FLASH],
}

EDITS = {
    **EAGER_AND_FLASH,
    **shared.LAYER,
    **shared.model("pos_embeds"),
}
