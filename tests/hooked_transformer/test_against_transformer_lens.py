"""Every method of the drop-in gives what TransformerLens 2.15.4's ``HookedTransformer`` gives, within float32 rounding."""

from typing import Any

import pytest
import torch

from tests.hooked_transformer import golden
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import make_model_of, make_reference
from tests.hooked_transformer.scenarios import PROCESSED, SCENARIOS, Values


def run(name: str, kind: str, tokenizer: Any, processed: bool = False) -> Values:
    model = make_model_of(kind, tokenizer)
    if processed:
        model.process_weights_()
    return SCENARIOS[name](model)


def assert_close(values: Values, expected: Values) -> None:
    assert sorted(values) == sorted(expected)
    for name, value in values.items():
        torch.testing.assert_close(
            value.detach().float(),
            expected[name].detach().float(),
            rtol=1e-4,
            atol=1e-5 * max(1.0, float(expected[name].detach().float().abs().max())),
            msg=lambda message, name=name: f"{name}: {message}",
        )


@needs_reference
@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_transformer_lens(name: str, kind: str, tokenizer: Any) -> None:
    assert_close(run(name, kind, tokenizer), SCENARIOS[name](make_reference(kind, tokenizer)))


@needs_reference
@pytest.mark.parametrize("name", PROCESSED)
def test_same_as_transformer_lens_with_its_default_processing(name: str, kind: str, tokenizer: Any) -> None:
    expected = SCENARIOS[name](make_reference(kind, tokenizer, processed=True))
    assert_close(run(name, kind, tokenizer, processed=True), expected)


@pytest.mark.parametrize("processed", [False, True], ids=["unprocessed", "processed"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_golden_values(name: str, kind: str, tokenizer: Any, processed: bool) -> None:
    if processed and name not in PROCESSED:
        pytest.skip("compared without processing only: the scenario does not depend on it")
    values = golden.sample(run(name, kind, tokenizer, processed))
    assert_close(values, golden.load(kind, name, processed))


@needs_reference
def test_golden_values_are_those_of_transformer_lens(kind: str, tokenizer: Any) -> None:
    for name, function in SCENARIOS.items():
        assert_close(golden.sample(function(make_reference(kind, tokenizer))), golden.load(kind, name, False))


@needs_reference
def test_a_difference_would_be_noticed(tokenizer: Any) -> None:
    with pytest.raises(AssertionError, match="logits"):
        assert_close(
            SCENARIOS["logits"](make_model_of("gpt_neox", tokenizer)),
            SCENARIOS["logits"](make_reference("gpt_neox_sequential", tokenizer)),
        )
