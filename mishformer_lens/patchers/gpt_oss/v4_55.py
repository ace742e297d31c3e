"""GPT-OSS as it came: in training its experts take turns, else each computes all tokens."""

from mishformer_lens.engine import EditLike
from mishformer_lens.patchers.gpt_oss import shared
from mishformer_lens.patchers.llama_like import v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = shared.ATTENTION
UNSUPPORTED = shared.UNSUPPORTED

# What an expert gives has one axis more, of a single entry.
EXPERTS: list[EditLike] = [
    shared.TURNS[0],
    ("expert_hitted[:]", "self.expert_hooks.each(expert_hitted[:], hidden_states, self.expert_dim)"),
    (
        "current_state @ self.gate_up_proj[expert_idx] + self.gate_up_proj_bias[expert_idx]",
        """
        self.expert_hooks.alternating(
            expert_idx, (current_state @ self.gate_up_proj[expert_idx] + self.gate_up_proj_bias[expert_idx])[0]
        )[None]
        """,
    ),
    ("gated_output = (up + 1) * glu", "gated_output = self.expert_hooks.post(expert_idx, ((up + 1) * glu)[0])[None]"),
]

EDITS = shared.edits(shared.ROUTED, EXPERTS)
