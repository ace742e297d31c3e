"""What stands in the sources of llama-like families, as edits by member, without the prefix of their class names.

A family's description chooses one form for each member. The forms hold in every release unless a family says otherwise.
"""

from mishformer_lens.engine import Edits

RMS_NORM: Edits = {
    "RMSNorm.forward": [
        (
            "hidden_states * torch.rsqrt(variance + self.variance_epsilon)",
            "self.norm_hooks.normalized(self.norm_hooks.divided(hidden_states, variance + self.variance_epsilon))",
        ),
    ],
}

# Its gain is one and what the weight adds to it. Both methods are patched: what is patched is proven to be what runs.
RMS_NORM_FROM_ONE: Edits = {
    "RMSNorm._norm": [
        (
            "x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)",
            "self.norm_hooks.divided(x, x.pow(2).mean(-1, keepdim=True) + self.eps)",
        ),
    ],
    "RMSNorm.forward": [("self._norm(x.float())", "self.norm_hooks.normalized(self._norm(x.float()))")],
}

LAYER_NORM_WITHOUT_WEIGHTS: Edits = {
    "LayerNorm.forward": [
        (
            "F.layer_norm(hidden_states.to(dtype=torch.float32), self.normalized_shape, None, None, eps=1e-5)"
            ".to(orig_dtype)",
            "self.norm_hooks.normalized(self.norm_hooks.layer_norm("
            "hidden_states.to(dtype=torch.float32), self.normalized_shape, None, None, eps=1e-5).to(orig_dtype))",
        ),
    ],
}

INTO_HEADS = [
    ("self.q_proj(hidden_states)", "self.attention_inputs.query(self.q_proj, hidden_states)"),
    ("self.k_proj(hidden_states)", "self.attention_inputs.key(self.k_proj, hidden_states)"),
    ("self.v_proj(hidden_states)", "self.attention_inputs.value(self.v_proj, hidden_states)"),
]

SPLIT_PROJECTIONS: Edits = {
    "Attention.forward": [
        *INTO_HEADS,
        ("self.o_proj(attn_output)", "self.head_results.project(self.o_proj, attn_output)"),
    ],
}

GATED_MLP: Edits = {
    "MLP.forward": [
        (
            "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
            "self.hook_post(self.act_fn(self.hook_pre(self.gate_proj(x))) * self.hook_pre_linear(self.up_proj(x)))",
        ),
    ],
}

# As above, in older releases of some families.
GATED_MLP_OF_ONE_STATE: Edits = {
    "MLP.forward": [
        (
            "self.act_fn(self.gate_proj(hidden_state)) * self.up_proj(hidden_state)",
            "self.hook_post(self.act_fn(self.hook_pre(self.gate_proj(hidden_state))) "
            "* self.hook_pre_linear(self.up_proj(hidden_state)))",
        ),
    ],
}

# What stands in every layer: its residual stream.

RESIDUAL_PRE = ("residual = hidden_states", "residual = hidden_states = self.hook_resid_pre(hidden_states)")


def _added(output: str) -> list[tuple[str, str]]:
    """The residual stream behind attention and MLP, where a layer adds ``output`` to it."""
    # Statements that occur twice at first: the edit before takes one of them away.
    return [
        (
            f"""
            hidden_states = residual + {output}
            residual = hidden_states
            """,
            f"residual = hidden_states = self.hook_resid_mid(residual + self.hook_attn_out({output}))",
        ),
        (
            f"hidden_states = residual + {output}",
            f"hidden_states = self.hook_resid_post(residual + self.hook_mlp_out({output}))",
        ),
    ]


def norms_before(ln2: str) -> list[tuple[str, str]]:
    """The norms before attention and before the MLP, which is called ``ln2``."""
    return [
        (
            "self.input_layernorm(hidden_states)",
            "self.attention_inputs.normalize(self.input_layernorm, hidden_states)",
        ),
        (f"self.{ln2}(hidden_states)", f"self.{ln2}(self.hook_mlp_in.copied(hidden_states))"),
    ]


PRE_NORM_LAYER: Edits = {
    "DecoderLayer.forward": [
        *_added("hidden_states"),
        RESIDUAL_PRE,
        *norms_before("post_attention_layernorm"),
    ],
}

PRE_NORM_LAYER_WITH_FACTOR: Edits = {
    "DecoderLayer.forward": [
        *_added("hidden_states * self.residual_multiplier"),
        RESIDUAL_PRE,
        *norms_before("post_attention_layernorm"),
    ],
}

# `post_attention_layernorm` stands behind attention here.
PRE_AND_POST_NORM_LAYER: Edits = {
    "DecoderLayer.forward": [
        *_added("hidden_states"),
        RESIDUAL_PRE,
        *norms_before("pre_feedforward_layernorm"),
    ],
}

POST_NORM_LAYER: Edits = {
    "DecoderLayer.forward": [
        *_added("hidden_states"),
        (
            "residual = hidden_states",
            """
            residual = hidden_states = self.hook_resid_pre(hidden_states)
            hidden_states = self.attention_inputs.take(hidden_states)
            """,
        ),
        ("self.mlp(hidden_states)", "self.mlp(self.hook_mlp_in.copied(hidden_states))"),
    ],
}

EMBEDDING: Edits = {
    "Model.forward": [("hidden_states = inputs_embeds", "hidden_states = self.hook_embed(inputs_embeds)")],
}

# Where it is multiplied after it became the residual stream.
MULTIPLIED_EMBEDDING: Edits = {
    "Model.forward": [("hidden_states * normalizer", "self.hook_embed(hidden_states * normalizer)")],
}

LLAMA_WITHOUT_NORM: Edits = {**SPLIT_PROJECTIONS, **GATED_MLP, **PRE_NORM_LAYER, **EMBEDDING}
"""All that Llama has but the norm."""

LLAMA: Edits = {**RMS_NORM, **LLAMA_WITHOUT_NORM}
"""All that Llama has."""

GEMMA: Edits = {**RMS_NORM_FROM_ONE, **LLAMA_WITHOUT_NORM}
"""All that Gemma has since its embedding multiplies by itself."""
