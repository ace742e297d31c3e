"""OLMoE, with clipped queries, keys and values."""

from tests.kinds import Kind, names

KINDS = {
    "olmoe": Kind(
        "olmoe",
        names("Olmoe"),
        {"clip_qkv": 1.5, "num_experts": 4, "num_experts_per_tok": 2, "attention_bias": True},
        query_key_norm="joined",
        norms_in_turn=True,
        experts=4,
        d_expert=48,
        choices_add_up=False,
    ),
}
