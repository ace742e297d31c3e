"""What descriptions of llama-like families have in common: what they call their parts, and their attention."""

from mishformer_lens.patchers.parts import Attention

COMPONENTS = {
    "blocks": "layers",
    "ln_final": "norm",
    "attn": "self_attn",
    "mlp": "mlp",
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
}
"""TransformerLens's name of a part to HuggingFace's, as Llama calls them."""

QUERY_KEY_NORMS = {"attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm"}

PRE_AND_POST_NORMS = {
    "ln1_post": "post_attention_layernorm",
    "ln2": "pre_feedforward_layernorm",
    "ln2_post": "post_feedforward_layernorm",
}
"""Norms before and after attention and MLP."""

POST_NORMS = {"ln1": "post_attention_layernorm", "ln2": "post_feedforward_layernorm"}
"""Norms after attention and MLP, and none before."""

GROUPED_HEADS = Attention(
    rotary=True,
    n_heads="config.num_attention_heads",
    n_key_value_heads="config.num_key_value_heads",
)
"""Attention whose heads the configuration tells; keys and values may have fewer of them."""
