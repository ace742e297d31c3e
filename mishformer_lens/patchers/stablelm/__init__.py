"""StableLM: what its models have in every release."""

import dataclasses

from mishformer_lens.engine import Edit
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms, parallel
from mishformer_lens.patchers.llama_like.components import DROP_IN, GROUPED_HEADS
from mishformer_lens.patchers.parts import MLP, Block, Norm

LAYER: list[Edit | tuple[str, str]] = [
    *parallel.BEFORE_ATTENTION,
    Edit("self.dropout(mlp_output)", "self.hook_mlp_out(self.dropout(mlp_output))", count=2),
    # The parallel form.
    (
        "mlp_output = self.mlp(hidden_states)",
        """
        self_attn_output = self.hook_attn_out(self_attn_output)
        mlp_output = self.mlp(self.shared_norm.for_mlp(self.input_layernorm, residual, hidden_states, may_edit))
        """,
    ),
    (
        "hidden_states = residual + self_attn_output + mlp_output",
        "hidden_states = self.hook_resid_post(residual + self_attn_output + mlp_output)",
    ),
    # The sequential form.
    (
        "residual = residual + self_attn_output",
        "residual = self.hook_resid_mid(residual + self.hook_attn_out(self_attn_output))",
    ),
    (
        "self.post_attention_layernorm(residual)",
        "self.post_attention_layernorm(self.hook_mlp_in.copied(residual))",
    ),
    (
        "hidden_states = residual + mlp_output",
        "hidden_states = self.hook_resid_post(residual + mlp_output)",
    ),
]

FAMILY = Family(
    name="stablelm",
    base_model="StableLmModel",
    components={
        "blocks": "layers",
        "ln_final": "norm",
        "attn": "self_attn",
        "attn.q_norm": "self_attn.q_layernorm",
        "attn.k_norm": "self_attn.k_layernorm",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    norm=Norm("layer", own=False),
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="each head"),
    mlp=MLP(gated=True),
    # Parallel blocks have no second norm.
    block=Block(parallel="use_parallel_residual", shared_norm=True),
    optional=("attn.q_norm", "attn.k_norm", "ln2"),
    drop_in=DROP_IN,
    template="llama_like",
    prefix="StableLm",
    forms={
        "LayerNormPerHead.forward": [
            ("torch.cat", "self.norm_hooks.of_each_head(torch.cat, self.norms, hidden_states)"),
        ],
        **forms.SPLIT_PROJECTIONS,
        **forms.GATED_MLP,
        "DecoderLayer.forward": LAYER,
        **forms.EMBEDDING,
    },
    class_forms={**attention_classes.PATTERN_DTYPE_FIRST, **forms.GATED_MLP_OF_ONE_STATE},
)
