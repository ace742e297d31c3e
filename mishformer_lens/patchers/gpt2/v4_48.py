"""GPT-2 with one attention class and attention functions; eager attention masks the future by itself."""

from mishformer_lens.patchers.gpt2 import shared, v4_44

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

SPLIT_HEADS = (
    """
    query_states = query_states.view(shape_q).transpose(1, 2)
    key_states = key_states.view(shape_kv).transpose(1, 2)
    value_states = value_states.view(shape_kv).transpose(1, 2)
    """,
    """
    query_states = self.hook_q.heads_first(query_states.view(shape_q).transpose(1, 2))
    key_states = self.hook_k.heads_first(key_states.view(shape_kv).transpose(1, 2))
    value_states = self.hook_v.heads_first(value_states.view(shape_kv).transpose(1, 2))
    """,
)

EDITS = {
    "eager_attention_forward": [shared.SCORES, shared.PATTERN_BEFORE_ATTN_DROPOUT],
    "GPT2Attention._upcast_and_reordered_attn": shared.SCORES_AND_PATTERN,
    "GPT2Attention.forward": [shared.PROJECT_IN, SPLIT_HEADS, shared.CHOOSE_BY_INDEX, shared.Z, shared.PROJECT_OUT],
    **shared.MLP,
    **shared.block("attn_output"),
    **shared.MODEL,
}
