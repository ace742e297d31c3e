"""GPT-NeoX as in 4.44, but with cache objects and with a rotary embedding that the model computes once."""

from mishformer_lens.patchers.gpt_neox import shared, v4_44

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = v4_44.ATTENTION
UNSUPPORTED = v4_44.UNSUPPORTED

ROTATED_KEYS = (
    "return query, key, value, layer_past",
    "return query, self.hook_rot_k.heads_first(key, copy=True), value, layer_past",
)

PROJECT_AND_ROTATE = """\
query, key, value, present = self._attn_projections_and_rope(
    hidden_states=hidden_states,
    position_ids=position_ids,
    layer_past=layer_past,
    use_cache=use_cache,
    cache_position=cache_position,
    position_embeddings=position_embeddings,
)
"""

FALLBACK = """\
if self.attention_scores.is_active():
    self.attention_scores.warn()
    return super().forward(
        hidden_states=hidden_states,
        attention_mask=self.attention_scores.four_axes(attention_mask, hidden_states.dtype),
        position_ids=position_ids,
        head_mask=head_mask,
        layer_past=layer_past,
        use_cache=use_cache,
        output_attentions=output_attentions,
        cache_position=cache_position,
        position_embeddings=position_embeddings,
    )

"""

EDITS = {
    **v4_44.EDITS,
    "GPTNeoXAttention._attn_projections_and_rope": [
        shared.PROJECT_IN,
        v4_44.SPLIT_HEADS,
        v4_44.ROTATED_QUERY,
        ROTATED_KEYS,
    ],
    "GPTNeoXFlashAttention2.forward": [
        (PROJECT_AND_ROTATE, FALLBACK + PROJECT_AND_ROTATE),
        v4_44.FLASH_Z,
        shared.PROJECT_OUT,
    ],
    "GPTNeoXSdpaAttention.forward": [
        (PROJECT_AND_ROTATE, FALLBACK + PROJECT_AND_ROTATE),
        v4_44.SDPA_Z,
        shared.PROJECT_OUT,
    ],
}
