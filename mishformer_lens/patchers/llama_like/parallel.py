"""Forms, as in :mod:`.forms`, of Cohere's layers: attention and MLP read what one centring norm gives."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.llama_like import forms

# A layer norm without bias, of a class of the family's own.
CENTRED_NORM: Edits = {
    "LayerNorm.forward": [
        (
            "(hidden_states - mean) * torch.rsqrt(variance + self.variance_epsilon)",
            "self.norm_hooks.divided(hidden_states - mean, variance + self.variance_epsilon)",
        ),
        ("hidden_states.to(input_dtype)", "self.norm_hooks.normalized(hidden_states.to(input_dtype))"),
    ],
}

# Layers in which attention and MLP read what one norm gives. `ln2` is what the MLP gets of it.
PARALLEL_LAYER: Edits = {
    "DecoderLayer.forward": [
        forms.RESIDUAL_PRE,
        (
            "self.input_layernorm(hidden_states)",
            "self.attention_inputs.normalize(self.input_layernorm, hidden_states)",
        ),
        (
            "hidden_states_mlp = self.mlp(hidden_states)",
            """
            hidden_states_attention = self.hook_attn_out(hidden_states_attention)
            hidden_states_mlp = self.hook_mlp_out(
                self.mlp(self.shared_norm.for_mlp(self.input_layernorm, residual, hidden_states))
            )
            """,
        ),
        (
            "residual + hidden_states_attention + hidden_states_mlp",
            "self.hook_resid_post(residual + hidden_states_attention + hidden_states_mlp)",
        ),
    ],
}
