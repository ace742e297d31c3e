"""StableLM: sequential, with a norm for each head's queries and keys, and parallel, with one norm for both parts."""

from tests.kinds import MODULES, Kind, names

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
        {**FIELDS, "qk_layernorm": True, "use_parallel_residual": False},
        norm="layer",
        rotated=(4, 4),
        query_key_norm="per head",
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
