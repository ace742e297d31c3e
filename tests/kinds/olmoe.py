"""OLMoE, with clipped queries, keys and values."""

import transformers

from tests.kinds import Kind, is_offered, names

# One release declares an int, and refuses its own default, False.
_DECLARED = vars(transformers.OlmoeConfig).get("__annotations__", {}) if is_offered("OlmoeConfig") else {}
_NOT_TIED = {"tie_word_embeddings": 0} if _DECLARED.get("tie_word_embeddings") in (int, "int") else {}

KINDS = {
    "olmoe": Kind(
        "olmoe",
        names("Olmoe"),
        {"clip_qkv": 1.5, "num_experts": 4, "num_experts_per_tok": 2, "attention_bias": True} | _NOT_TIED,
        query_key_norm="joined",
        norms_in_turn=True,
        experts=4,
        d_expert=48,
        choices_add_up=False,
    ),
}
