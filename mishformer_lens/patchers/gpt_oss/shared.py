"""What the variants of GPT-OSS have in common."""

from mishformer_lens.engine import EditLike, Edits
from mishformer_lens.patchers.gpt_oss import FAMILY
from mishformer_lens.patchers.llama_like import v4_48

ATTENTION = ("eager",)
UNSUPPORTED = {
    "sdpa": "transformers refuses it for GPT-OSS, whose attention has sinks",
    "flash_attention_2": "it has no attention sinks, as GPT-OSS needs them",
    "flex_attention": "transformers refuses attention sinks in it on the CPU",
}

# A sink joins the scores as one key more, and leaves with a part of the pattern.
EAGER: list[EditLike] = [
    (
        "torch.cat([attn_weights, sinks], dim=-1)",
        "torch.cat([module.hook_attn_scores(attn_weights), sinks], dim=-1)",
    ),
    ("probs[..., :-1]", "module.hook_pattern(probs[..., :-1])"),
]

# Releases whose mixture computes all experts for all tokens at once, but for those cases in which it does not.
ROUTED: list[EditLike] = [
    (
        "router_scores, router_indices = self.router(hidden_states)",
        """
        router_scores, router_indices = self.router(hidden_states)
        router_scores = self.hook_expert_weights(router_scores)
        router_indices = self.routing.chosen(router_indices)
        """,
    ),
]
TURNS: list[EditLike] = [
    ("self.training", "self.expert_hooks.take_turns(self.training)"),
    ("expert_hit[:]", "self.expert_hooks.each(expert_hit[:], hidden_states, self.expert_dim)"),
    (
        "current_state @ self.gate_up_proj[expert_idx] + self.gate_up_proj_bias[expert_idx]",
        """
        self.expert_hooks.alternating(
            expert_idx, current_state @ self.gate_up_proj[expert_idx] + self.gate_up_proj_bias[expert_idx]
        )
        """,
    ),
    ("gated_output = (up + 1) * glu", "gated_output = self.expert_hooks.post(expert_idx, (up + 1) * glu)"),
]


def edits(mixture: list[EditLike], experts: list[EditLike]) -> Edits:
    """The edits of a release, with those of its mixture and of its experts."""
    return {
        **v4_48.edits(FAMILY),
        "eager_attention_forward": EAGER,
        "GptOssMLP.forward": mixture,
        "GptOssExperts.forward": experts,
    }
