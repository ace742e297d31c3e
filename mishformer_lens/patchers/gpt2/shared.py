"""Edits that many GPT-2 variants have in common."""

MLP = {
    "GPT2MLP.forward": [
        ("self.act(hidden_states)", "self.hook_post(self.act(self.hook_pre(hidden_states)))"),
    ],
}

_BEFORE_ATTENTION = (
    """
    residual = hidden_states
    hidden_states = self.ln_1(hidden_states)
    """,
    """
    hidden_states = self.hook_resid_pre(hidden_states)
    residual = hidden_states
    hidden_states = self.attention_inputs.normalize(self.ln_1, hidden_states)
    """,
)
_AFTER_MLP = (
    "residual + feed_forward_hidden_states",
    "self.hook_resid_post(residual + self.hook_mlp_out(feed_forward_hidden_states))",
)

# Blocks without cross-attention, of families with sources like GPT-2's.
BLOCK = {
    "GPT2Block.forward": [
        _BEFORE_ATTENTION,
        ("attn_output + residual", "self.hook_attn_out(attn_output) + residual"),
        (
            """
            residual = hidden_states
            hidden_states = self.ln_2(hidden_states)
            """,
            """
            residual = self.hook_resid_mid(hidden_states)
            hidden_states = self.ln_2(self.hook_mlp_in.copied(residual))
            """,
        ),
        _AFTER_MLP,
    ],
}


def block(added: str) -> dict[str, list[tuple[str, str]]]:
    """The edits of a block that calls ``added`` what its cross-attention gives."""
    return {
        "GPT2Block.forward": [
            _BEFORE_ATTENTION,
            ("attn_output + residual", "self.hook_resid_mid(self.hook_attn_out(attn_output) + residual)"),
            ("self.ln_cross_attn(hidden_states)", "self.ln_cross_attn(self.hook_cross_attn_in.copied(hidden_states))"),
            (
                f"residual + {added}",
                f"self.hook_resid_mid_cross(residual + self.hook_cross_attn_out({added}))",
            ),
            ("self.ln_2(hidden_states)", "self.ln_2(self.hook_mlp_in.copied(hidden_states))"),
            _AFTER_MLP,
        ],
    }


# The projections in and out, the same in every attention class and release.
PROJECT_IN = ("self.c_attn(hidden_states)", "self.attention_inputs.project(self.c_attn, hidden_states)")
PROJECT_OUT = ("self.c_proj(attn_output)", "self.head_results.project(self.c_proj, attn_output)")

# Scores and pattern, where the attention class computes them itself.
SCORES_AND_PATTERN = [
    (
        "nn.functional.softmax(attn_weights, dim=-1)",
        "nn.functional.softmax(self.hook_attn_scores(attn_weights), dim=-1)",
    ),
    ("self.attn_dropout(attn_weights)", "self.attn_dropout(self.hook_pattern(attn_weights))"),
]

# Scores and pattern, where a function of the module computes them. Only patched attention calls the patched function.
SCORES = (
    "nn.functional.softmax(attn_weights, dim=-1)",
    "nn.functional.softmax(module.hook_attn_scores(attn_weights), dim=-1)",
)
PATTERN_BEFORE_ATTN_DROPOUT = (
    "module.attn_dropout(attn_weights)",
    "module.attn_dropout(module.hook_pattern(attn_weights))",
)

Z = (
    "attn_output.reshape(*attn_output.shape[:-2], -1)",
    "self.hook_z(attn_output).reshape(*attn_output.shape[:-2], -1)",
)

# Query, key and value, where key and value are split into heads before the query is. Those of cross-attention are
# computed in the first pass and stay in the cache: each pass sees them, and an edit acts in its own pass.
SPLIT_QUERY_LAST = [
    (
        """
        shape_q = (*query_states.shape[:-1], -1, self.head_dim)
        query_states = query_states.view(shape_q).transpose(1, 2)
        """,
        """
        shape_q = (*query_states.shape[:-1], -1, self.head_dim)
        query_states = self.hook_q.heads_first(query_states.view(shape_q).transpose(1, 2))
        if not is_cross_attention:
            key_states = self.hook_k.heads_first(key_states)
            value_states = self.hook_v.heads_first(value_states)
        """,
    ),
    (
        'using_eager = self.config._attn_implementation == "eager"',
        """
        if is_cross_attention:
            key_states = self.hook_k.heads_first(key_states, copy=True)
            value_states = self.hook_v.heads_first(value_states, copy=True)
        using_eager = self.config._attn_implementation == "eager"
        """,
    ),
]

# The choice of the attention function, by index and by method.
CHOOSE_BY_INDEX = (
    "ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]",
    "self.attention_scores.choose(ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation], eager_attention_forward)",
)
CHOOSE_BY_METHOD = (
    "ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)",
    "self.attention_scores.choose("
    "ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward), "
    "eager_attention_forward)",
)

MODEL = {
    "GPT2Model.forward": [
        (
            "position_embeds = self.wpe(position_ids)",
            """
            inputs_embeds = self.hook_embed(inputs_embeds)
            position_embeds = self.hook_pos_embed.for_batch(self.wpe(position_ids), inputs_embeds.shape[0])
            """,
        ),
    ],
}
