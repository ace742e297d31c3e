"""Cohere 2: as Cohere; one layer with a sliding window and rotated heads, one that sees everything and rotates none."""

import inspect

import transformers

from tests.kinds import MODULES, Kind, is_offered, names

# 5.4 wants a number here, and refuses its own default.
_ANNOTATIONS = inspect.get_annotations(transformers.Cohere2Config) if is_offered("Cohere2Config") else {}
USE_CACHE = {"use_cache": 1} if _ANNOTATIONS.get("use_cache") is int else {}

KINDS = {
    "cohere2": Kind(
        "cohere2",
        names("Cohere2"),
        {
            **USE_CACHE,
            "logit_scale": 0.5,
            "attention_bias": True,
            "attention_dropout": 0.0,
            "tie_word_embeddings": True,
            "sliding_window": 4,
            # As older releases call it, and newer ones.
            "sliding_window_pattern": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        parallel=True,
        shared_norm=True,
        norm="layer",
        windows=(4, None),
        rotated=(8, 0),
        modules={role: path for role, path in MODULES.items() if role != "ln2"},
    ),
}
