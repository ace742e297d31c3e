"""GPT-2 with one attention class and attention functions, masks of one form for all of them, and no head mask."""

from mishformer_lens.patchers.gpt2 import shared

ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {
    "flex_attention": "these releases of transformers do not offer flex attention for GPT-2",
}

EDITS = {
    "eager_attention_forward": [
        (
            "nn.functional.softmax(attn_weights, dim=-1)",
            "nn.functional.softmax(module.hook_attn_scores(attn_weights), dim=-1)",
        ),
        (
            "nn.functional.dropout(attn_weights, p=dropout, training=module.training)",
            "nn.functional.dropout(module.hook_pattern(attn_weights), p=dropout, training=module.training)",
        ),
    ],
    "GPT2Attention._upcast_and_reordered_attn": shared.SCORES_AND_PATTERN,
    "GPT2Attention.forward": [
        shared.PROJECT_IN,
        (
            "query_states = query_states.view(shape_q).transpose(1, 2)",
            """
            query_states = self.hook_q.heads_first(query_states.view(shape_q).transpose(1, 2))
            key_states = self.hook_k.heads_first(key_states)
            value_states = self.hook_v.heads_first(value_states)
            """,
        ),
        (
            """
            attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            """,
            """
            attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            attention_interface = self.attention_scores.choose(attention_interface, eager_attention_forward)
            """,
        ),
        (
            "attn_output.reshape(*attn_output.shape[:-2], -1)",
            "self.hook_z(attn_output).reshape(*attn_output.shape[:-2], -1)",
        ),
        shared.PROJECT_OUT,
    ],
    **shared.MLP,
    **shared.BLOCK,
    "GPT2Model.forward": [
        (
            "inputs_embeds + position_embeds.to(inputs_embeds.device)",
            "self.hook_embed(inputs_embeds) + self.hook_pos_embed.for_batch(position_embeds.to(inputs_embeds.device), inputs_embeds.shape[0])",
        ),
    ],
}
