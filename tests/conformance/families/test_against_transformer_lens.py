"""Every activation, plain and after an edit of each hook point, is what TransformerLens's own class computes.

Where the installed TransformerLens has the family and computes what HuggingFace does; elsewhere, golden values of a
release that does stand in for it.
"""

import pytest
import torch

import mishformer_lens
from tests.conformance.families import golden
from tests.conformance.families.conftest import here
from tests.conformance.families.contract import unflagged
from tests.conformance.families.transformer_lens import (
    CLOSE,
    carried,
    edits,
    hf_model,
    names,
    reference,
    run_hooked,
    run_reference,
)
from tests.conformance.golden import HIDDEN, UNEDITED
from tests.kinds import kinds
from tests.recording import assert_close


@pytest.mark.parametrize("kind", carried())
def test_every_edit_does_what_it_does_in_transformer_lens(kind: str) -> None:
    model = hf_model(kind)
    points = mishformer_lens.instrument(model).hook_points
    for edited in edits(kind):
        seen = names(kind, edited)
        expected, found = run_reference(kind, edited, seen), run_hooked(model, points, edited, seen)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            other = expected[name].reshape(value.shape)
            if name.endswith("hook_attn_scores"):
                # HuggingFace masks with the smallest number, TransformerLens with minus infinity.
                visible = other > HIDDEN
                assert torch.equal(visible, value > HIDDEN)
                value, other = value[visible], other[visible]
            if not torch.allclose(value, other, CLOSE["rtol"], CLOSE["atol"]):
                assert_close(value, other, f"{edited}: {name}", **CLOSE)


@pytest.mark.parametrize("kind", carried())
def test_hook_points_fire_in_the_order_of_transformer_lens(kind: str) -> None:
    fired = run_reference(kind, UNEDITED, list(reference(kind).hook_dict))
    # From 3.0 on, there are hook points before and after the unembedding.
    found = [name for name in fired if not name.startswith("unembed.") and name != "logits"]
    assert set(found) == set(unflagged(kind))
    assert [name for name in found if not is_turned(name)] == [name for name in unflagged(kind) if not is_turned(name)]


def is_turned(name: str) -> bool:
    """Whether a hook point is of a norm that HuggingFace may compute before the next projection, and nobody else."""
    return ".q_norm." in name or ".k_norm." in name


def stood_in_for() -> list[str]:
    """The kinds that the installed TransformerLens does not carry, and another release does."""
    return [name for name in here() if kinds()[name].in_transformer_lens and name not in carried()]


@pytest.mark.parametrize("kind", stood_in_for())
def test_every_edit_does_what_golden_values_say(kind: str) -> None:
    model = hf_model(kind, golden.release_of(kind))
    points = mishformer_lens.instrument(model).hook_points
    values = golden.sample(kind, lambda edited, seen: run_hooked(model, points, edited, seen))
    golden.assert_close(kind, values)


@pytest.mark.parametrize("kind", [kind for kind in carried() if golden.is_made_here(kind)])
def test_golden_values_are_those_of_transformer_lens(kind: str) -> None:
    golden.assert_close(kind, golden.sample(kind, lambda edited, seen: run_reference(kind, edited, seen)))


@pytest.mark.parametrize("kind", [name for name in here() if kinds()[name].in_transformer_lens])
def test_an_edit_that_is_not_made_would_be_noticed(kind: str) -> None:
    golden.assert_edits_are_felt(kind)
