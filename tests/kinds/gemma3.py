"""Gemma3's text model, with biases, a window in the first layer, and rotations that are scaled in the second."""

from tests.kinds import Counterpart, Kind
from tests.kinds.gemma2 import KINDS as GEMMA2

KINDS = {
    "gemma3": Kind(
        "gemma3",
        {"config": "Gemma3TextConfig", "base": "Gemma3TextModel", "causal": "Gemma3ForCausalLM"},
        {
            "head_dim": 10,
            "attention_bias": True,
            "sliding_window": 4,
            # up to 4.52, and since
            "sliding_window_pattern": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 24,
            "final_logit_softcapping": 5.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
        d_head=10,
        norms="both",
        query_key_norm="per head",
        modules=GEMMA2["gemma2"].modules,
        windows=(4, None),
        scaled_embedding=32**0.5,
        attention_scale=24**-0.5,
        in_transformer_lens=(
            Counterpart(
                "3.2",
                {"attention_bias": False},
                "google/gemma-3-1b",
                {
                    "attn_scale": 24**0.5,
                    "output_logits_soft_cap": 5.0,
                    "window_size": 4,
                    "attn_types": ["local", "global"],
                    "rotary_scaling_factor": 2.0,
                },
            ),
        ),
    ),
}
