"""What a person may have meant."""

import pytest

from mishformer_lens.suggestions import did_you_mean

NAMES = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.attn.hook_q", "blocks.1.attn.hook_q"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("hook_embd", "'hook_embed'"),
        ("blocks.0.hook_resid_per", "'blocks.0.hook_resid_pre'"),
        ("blocks.0.atn.hook_q", "'blocks.0.attn.hook_q' or 'blocks.1.attn.hook_q'"),
    ],
)
def test_the_closest_names_come_first(name: str, closest: str) -> None:
    found = did_you_mean(name, iter(NAMES))
    assert found.startswith(f"Did you mean {closest}")
    assert found.endswith("? ")


@pytest.mark.parametrize("name", ["weather", ""])
def test_a_name_like_nothing_known_has_no_suggestion(name: str) -> None:
    assert did_you_mean(name, NAMES) == ""


def test_nothing_known_nothing_suggested() -> None:
    assert did_you_mean("hook_embed", []) == ""


def test_at_most_three_names() -> None:
    assert did_you_mean("blocks.x.attn.hook_q", [f"blocks.{i}.attn.hook_q" for i in range(9)]).count(" or ") == 2
