"""GPT-OSS whose experts kernels may compute, and whose router gives the weights of the chosen experts alone."""

from mishformer_lens.engine import EditLike
from mishformer_lens.patchers.gpt_oss import shared
from mishformer_lens.patchers.llama_like import v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = shared.ATTENTION
UNSUPPORTED = shared.UNSUPPORTED

MIXTURE: list[EditLike] = [
    (
        "_, router_scores, router_indices = self.router(hidden_states)",
        """
        _, router_scores, router_indices = self.router(hidden_states)
        router_scores, router_indices = self.routing.weighed(router_scores, router_indices)
        """,
    ),
]
EXPERTS: list[EditLike] = [
    # A decorator of the class chooses between this code and kernels; patched code is not decorated.
    (
        "next_states = torch.zeros_like(hidden_states, dtype=hidden_states.dtype, device=hidden_states.device)",
        """
        if not self.expert_hooks.are_looked_into(self.config._experts_implementation):
            return self.expert_hooks.unseen(self)(hidden_states, router_indices, routing_weights)
        next_states = torch.zeros_like(hidden_states, dtype=hidden_states.dtype, device=hidden_states.device)
        """,
    ),
    (
        "torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero()",
        """
        self.expert_hooks.each(
            torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero(), hidden_states, self.intermediate_size
        )
        """,
    ),
    (
        "self._apply_gate(gate_up)",
        "self.expert_hooks.post(expert_idx, self._apply_gate(self.expert_hooks.alternating(expert_idx, gate_up)))",
    ),
]

EDITS = shared.edits(MIXTURE, EXPERTS)
