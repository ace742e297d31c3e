"""StableLM: sequential, with a norm for each head's queries and keys, and parallel, with one norm for both parts."""

import transformers

from tests.kinds import MODULES, Kind, names


def norms_each_head() -> bool:
    """Whether the installed release can make a model with norms of queries and keys: some want biases of them."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 8}
    config = transformers.StableLmConfig(vocab_size=8, num_hidden_layers=1, qk_layernorm=True, **sizes)
    try:
        transformers.StableLmModel(config)
    except AttributeError:
        return False
    return True


QK_NORM = norms_each_head()
FIELDS = {
    "partial_rotary_factor": 0.5,
    "use_qkv_bias": True,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
}

KINDS = {
    "stablelm": Kind(
        "stablelm",
        names("StableLm"),
        {**FIELDS, "qk_layernorm": QK_NORM, "use_parallel_residual": False},
        norm="layer",
        rotated=(4, 4),
        query_key_norm="per head" if QK_NORM else "",
    ),
    "stablelm_parallel": Kind(
        "stablelm",
        names("StableLm"),
        {**FIELDS, "qk_layernorm": False, "use_parallel_residual": True, "tie_word_embeddings": True},
        norm="layer",
        rotated=(4, 4),
        parallel=True,
        shared_norm=True,
        modules={role: path for role, path in MODULES.items() if role != "ln2"},
    ),
}
