"""Phi: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms, parallel
from mishformer_lens.patchers.llama_like.components import DROP_IN, GROUPED_HEADS
from mishformer_lens.patchers.parts import Block, Norm

FAMILY = Family(
    name="phi",
    base_model="PhiModel",
    components={
        "blocks": "layers",
        "ln_final": "final_layernorm",
        "attn": "self_attn",
        "attn.q_norm": "self_attn.q_layernorm",
        "attn.k_norm": "self_attn.k_layernorm",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "input_layernorm",
    },
    norm=Norm("layer", own=False),
    attention=dataclasses.replace(GROUPED_HEADS, query_key_norm="head pos"),
    block=Block(parallel=True, shared_norm=True),
    optional=("attn.q_norm", "attn.k_norm"),
    drop_in=dataclasses.replace(
        DROP_IN,
        models=("microsoft/phi-1", "microsoft/phi-1_5", "microsoft/phi-2"),
        output="self_attn.dense",
        mlp_in="mlp.fc1",
        mlp_out="mlp.fc2",
        mlp_gate=None,
    ),
    template="llama_like",
    prefix="Phi",
    forms={
        "Attention.forward": [
            *forms.INTO_HEADS,
            ("self.dense(attn_output)", "self.head_results.project(self.dense, attn_output)"),
        ],
        "MLP.forward": [
            ("self.activation_fn(hidden_states)", "self.hook_post(self.activation_fn(self.hook_pre(hidden_states)))"),
        ],
        "DecoderLayer.forward": [
            *parallel.BEFORE_ATTENTION,
            ("self.resid_dropout(attn_outputs)", "self.hook_attn_out(self.resid_dropout(attn_outputs))"),
            (
                "self.resid_dropout(self.mlp(hidden_states))",
                """
                self.hook_mlp_out(
                    self.resid_dropout(
                        self.mlp(self.shared_norm.for_mlp(self.input_layernorm, residual, hidden_states, may_edit))
                    )
                )
                """,
            ),
            (
                "attn_outputs + feed_forward_hidden_states + residual",
                "self.hook_resid_post(attn_outputs + feed_forward_hidden_states + residual)",
            ),
        ],
        "Model.forward": [
            ("self.embed_dropout(inputs_embeds)", "self.embed_dropout(self.hook_embed(inputs_embeds))"),
        ],
    },
    class_forms=attention_classes.PATTERN_LIKE_VALUES,
)
