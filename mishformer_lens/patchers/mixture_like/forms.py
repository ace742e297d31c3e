"""What stands in mixtures of experts, as edits by member, without the prefix of their class names."""

from mishformer_lens.engine import Edits

# Releases where all experts are one module, and the router is another.

ROUTER: Edits = {
    "TopKRouter.forward": [
        (
            "torch.nn.functional.softmax(router_logits, dtype=torch.float, dim=-1)",
            "self.hook_expert_weights(torch.nn.functional.softmax(router_logits, dtype=torch.float, dim=-1))",
        ),
    ],
}

ROUTER_OF_FLOATS: Edits = {
    "TopKRouter.forward": [
        (
            "torch.nn.functional.softmax(router_logits.float(), dim=-1)",
            "self.hook_expert_weights(torch.nn.functional.softmax(router_logits.float(), dim=-1))",
        ),
    ],
}


def mixture(indices: str) -> Edits:
    """A mixture that calls the numbers of the experts that its router chose so."""
    return {"SparseMoeBlock.forward": [(indices, f"self.routing.chosen({indices})")]}


EXPERTS: Edits = {
    "Experts.forward": [
        # A decorator of the class chooses between this code and kernels; patched code is not decorated.
        (
            "final_hidden_states = torch.zeros_like(hidden_states)",
            """
            if not self.expert_hooks.are_looked_into(self.config._experts_implementation):
                return self.expert_hooks.unseen(self)(hidden_states, top_k_index, top_k_weights)
            final_hidden_states = torch.zeros_like(hidden_states)
            """,
        ),
        (
            "torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero()",
            """
            self.expert_hooks.each(
                torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero(), hidden_states, self.intermediate_dim
            )
            """,
        ),
        (
            "self.act_fn(gate) * up",
            """
            self.expert_hooks.post(
                expert_idx,
                self.act_fn(self.expert_hooks.gate(expert_idx, gate)) * self.expert_hooks.pre(expert_idx, up),
            )
            """,
        ),
    ],
}

# Releases where each expert is a module, and the mixture chooses by itself.

MIXTURE_OF_MODULES: Edits = {
    "SparseMoeBlock.forward": [
        (
            "F.softmax(router_logits, dim=1, dtype=torch.float)",
            "self.hook_expert_weights(F.softmax(router_logits, dim=1, dtype=torch.float))",
        ),
        *mixture("selected_experts")["SparseMoeBlock.forward"],
    ],
}
