"""Cohere: one centring norm before attention and MLP, scaled logits; with norms of queries and keys, and without."""

import dataclasses

from tests.kinds import MODULES, Kind, names

COHERE = Kind(
    "cohere",
    names("Cohere"),
    {"logit_scale": 0.5, "attention_bias": True, "attention_dropout": 0.0, "tie_word_embeddings": True},
    parallel=True,
    shared_norm=True,
    norm="layer",
    modules={role: path for role, path in MODULES.items() if role != "ln2"},
)

KINDS = {
    "cohere": COHERE,
    "cohere_normed": dataclasses.replace(
        COHERE, fields={**COHERE.fields, "use_qk_norm": True}, query_key_norm="per head"
    ),
}
