"""What descriptions of llama-like families have in common: what they call their parts, their attention and
weights."""

from mishformer_lens.patchers.parts import Attention, DropIn, Norm

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

RMS_NORM = Norm("rms", own=True, eps="variance_epsilon")

RMS_NORM_FROM_ONE = Norm("rms", own=True, gain_from_one=True)
"""As Gemma has it."""

DROP_IN = DropIn(
    embed="embed_tokens",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output="self_attn.o_proj",
    mlp_in="mlp.up_proj",
    mlp_out="mlp.down_proj",
    mlp_gate="mlp.gate_proj",
    config={"act_fn": "hidden_act"},
    rotary=("partial_rotary_factor", "rope_theta"),
)
"""Where Llama has its weights."""
