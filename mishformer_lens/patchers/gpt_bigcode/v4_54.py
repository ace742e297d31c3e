"""GPT-BigCode with the attention functions of all models, and cache objects."""

from mishformer_lens.patchers.gpt_bigcode import shared, v4_44
from mishformer_lens.patchers.llama_like import v4_48 as llama_like

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

_HOOKS = """
query = self.hook_q.heads_first(query)
key = self.hook_k.heads_first(key)
value = self.hook_v.heads_first(value)
"""
_ONE_KEY = "query = query.view(*input_shape, -1, self.head_dim).transpose(1, 2)"
_KEYS = """
query, key, value = (
    self.c_attn(hidden_states)
    .view(*hidden_states.shape[:2], self.num_heads, 3 * self.head_dim)
    .transpose(1, 2)
    .split(3 * [self.head_dim], dim=3)
)
"""

EDITS = {
    "eager_attention_forward": llama_like.EAGER,
    "GPTBigCodeAttention.forward": [
        (_ONE_KEY, f"{_ONE_KEY}{_HOOKS}"),
        (_KEYS, f"{_KEYS}{_HOOKS}"),
        shared.PROJECT_IN,
        llama_like.CALL,
        ("self.c_proj(attn_output)", "self.head_results.project(self.c_proj, attn_output)"),
    ],
    **shared.AROUND,
}
