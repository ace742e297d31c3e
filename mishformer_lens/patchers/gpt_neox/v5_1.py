"""GPT-NeoX as in 4.53, but the attention function is looked up by a method."""

from mishformer_lens.patchers.gpt_neox import shared, v4_49, v4_53

CACHE_ARGUMENT = v4_53.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_53.CACHE_BY_PLACE
ATTENTION = v4_53.ATTENTION
UNSUPPORTED = v4_53.UNSUPPORTED

EDITS = {
    **v4_53.EDITS,
    "GPTNeoXAttention.forward": [
        shared.PROJECT_IN,
        v4_49.SPLIT_HEADS,
        v4_49.ROTATED_QUERY,
        # The first statement after the cache was updated.
        (
            """
            attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            """,
            """
            key_states = self.hook_rot_k.heads_first(key_states, copy=True)

            attention_interface: Callable = self.attention_scores.choose(
                ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward),
                eager_attention_forward,
            )
            """,
        ),
        v4_49.Z,
        shared.PROJECT_OUT,
    ],
}
