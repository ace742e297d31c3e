"""Olmo, with biases, and with queries, keys and values that are clipped in place."""

from tests.kinds import Counterpart, Kind, names, untied

NAME = "allenai/OLMo-1B-hf"
PLAIN = {"attention_bias": False, "num_key_value_heads": 4}

KINDS = {
    "olmo": Kind(
        "olmo",
        names("Olmo"),
        {"attention_bias": True, "clip_qkv": 1.0, **untied("OlmoConfig")},
        norm="layer",
        # 5.4 cannot read what it has written of it.
        is_readable=not untied("OlmoConfig"),
        in_transformer_lens=(
            Counterpart("3.2", {**PLAIN, "clip_qkv": None}, NAME, {"n_key_value_heads": None}),
            Counterpart("3.9", PLAIN, NAME, {"n_key_value_heads": None}),
        ),
    ),
}
