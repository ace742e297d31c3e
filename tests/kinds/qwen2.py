"""Qwen2, with a window in the second layer; and with rotations that are scaled as YaRN does."""

from tests.kinds import YARN_ROPE, Counterpart, Kind, names, windows

KINDS = {
    "qwen2": Kind(
        "qwen2",
        names("Qwen2"),
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        windows=windows("qwen2", (None, 4)),
        in_transformer_lens=(Counterpart("2.15", {"use_sliding_window": False, "sliding_window": None}),),
    ),
    "qwen2_yarn": Kind("qwen2", names("Qwen2"), {"rope_scaling": YARN_ROPE, "tie_word_embeddings": True}),
}
