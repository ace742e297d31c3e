"""Phi-3: what its models have in every release."""

import dataclasses

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms, fused
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP, PART_BY_PART


def _layer(attention: str) -> Edits:
    """The edits of a layer that calls the output of its attention so."""
    return {
        "DecoderLayer.forward": [
            # Statements that occur twice at first: the edit before takes one of them away.
            (
                f"""
                hidden_states = residual + self.resid_attn_dropout({attention})
                residual = hidden_states
                """,
                f"""
                residual = hidden_states = self.hook_resid_mid(
                    residual + self.hook_attn_out(self.resid_attn_dropout({attention}))
                )
                """,
            ),
            forms.RESIDUAL_PRE,
            (
                "residual + self.resid_mlp_dropout(hidden_states)",
                "self.hook_resid_post(residual + self.hook_mlp_out(self.resid_mlp_dropout(hidden_states)))",
            ),
            *forms.norms_before("post_attention_layernorm"),
        ],
    }


FAMILY = Family(
    name="phi3",
    base_model="Phi3Model",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=dataclasses.replace(GROUPED_HEADS, qkv_layout=PART_BY_PART),
    mlp=MLP(gated=True),
    drop_in=dataclasses.replace(
        DROP_IN,
        models=("microsoft/phi-4",),
        names={"phi-3": "microsoft/Phi-3-mini-4k-instruct"},
        qkv="self_attn.qkv_proj",
        mlp_in="mlp.gate_up_proj",
        mlp_gate=None,
    ),
    template="llama_like",
    prefix="Phi3",
    forms={
        **forms.RMS_NORM,
        **fused.OUT_OF_ONE_PROJECTION,
        **fused.FUSED_GATED_MLP,
        **_layer("hidden_states"),
        **forms.EMBEDDING,
    },
    class_forms={**attention_classes.PATTERN_LIKE_VALUES, **attention_classes.FLASH_REPEATED, **_layer("attn_outputs")},
)
