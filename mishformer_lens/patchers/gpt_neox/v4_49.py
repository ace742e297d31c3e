"""GPT-NeoX with the attention functions of all models; what eager attention has to do is decided in the attention."""

from mishformer_lens.patchers.gpt_neox import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = False
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
UNSUPPORTED: dict[str, str] = {}

EAGER = [
    (
        "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)",
        """
        module.hook_pattern(
            nn.functional.softmax(module.hook_attn_scores(attn_weights), dim=-1, dtype=torch.float32).to(query.dtype)
        )
        """,
    ),
]

SPLIT_HEADS = (
    "query_states, key_states, value_states = qkv.chunk(3, dim=-1)",
    """
    query_states, key_states, value_states = qkv.chunk(3, dim=-1)
    query_states = self.hook_q.heads_first(query_states)
    key_states = self.hook_k.heads_first(key_states)
    value_states = self.hook_v.heads_first(value_states)
    """,
)
ROTATED_QUERY = (
    "query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)",
    """
    query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
    query_states = self.hook_rot_q.heads_first(query_states)
    """,
)
# The first statement after the cache was updated.
ROTATED_KEYS = (
    "attention_interface: Callable = eager_attention_forward",
    """
    key_states = self.hook_rot_k.heads_first(key_states, copy=True)

    attention_interface: Callable = eager_attention_forward
    """,
)
CHOOSE = (
    "ALL_ATTENTION_FUNCTIONS[attention_type]",
    "self.attention_scores.choose(ALL_ATTENTION_FUNCTIONS[attention_type], eager_attention_forward)",
)
Z = ("attn_output.reshape(*input_shape, -1)", "self.hook_z(attn_output).reshape(*input_shape, -1)")

EDITS = {
    "eager_attention_forward": EAGER,
    "GPTNeoXAttention.forward": [
        shared.PROJECT_IN,
        SPLIT_HEADS,
        ROTATED_QUERY,
        ROTATED_KEYS,
        CHOOSE,
        Z,
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.LAYER,
    **shared.MODEL,
}
