"""Every method of the drop-in gives what TransformerLens 2.15.4's own class gives, within float32 rounding."""

import functools
from typing import Any

import pytest
import torch

from tests.hooked_transformer import golden
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import make_model_of, make_reference
from tests.hooked_transformer.scenarios import PROCESSED, SCENARIOS, Values

REAL_SIZES: dict[str, dict[str, Any]] = {
    # GPT-2 small, and Pythia 70M; the vocabulary stays small.
    "gpt2": {"n_embd": 768, "n_inner": 3072, "n_head": 12, "n_layer": 12, "n_positions": 1024},
    "gpt_neox": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 6,
        "max_position_embeddings": 2048,
    },
}


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
            msg=functools.partial("{}: {}".format, name),
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


@pytest.mark.parametrize(
    ("name", "processed"), [*((name, False) for name in SCENARIOS), *((name, True) for name in PROCESSED)]
)
def test_same_as_golden_values(name: str, kind: str, tokenizer: Any, processed: bool) -> None:
    values = golden.sample(run(name, kind, tokenizer, processed))
    assert_close(values, golden.load(kind, name, processed))


@needs_reference
def test_golden_values_are_those_of_transformer_lens(kind: str, tokenizer: Any) -> None:
    for name, function in SCENARIOS.items():
        assert_close(golden.sample(function(make_reference(kind, tokenizer))), golden.load(kind, name, False))


@needs_reference
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_same_as_transformer_lens_at_the_size_of_real_models(kind: str) -> None:
    sizes = REAL_SIZES[kind]
    model, reference = make_model_of(kind, **sizes), make_reference(kind, **sizes)
    with torch.no_grad():
        for name in ("logits", "loss", "cache"):
            assert_close(SCENARIOS[name](model), SCENARIOS[name](reference))


@needs_reference
def test_a_difference_would_be_noticed(tokenizer: Any) -> None:
    with pytest.raises(AssertionError, match="logits"):
        assert_close(
            SCENARIOS["logits"](make_model_of("gpt_neox", tokenizer)),
            SCENARIOS["logits"](make_reference("gpt_neox_sequential", tokenizer)),
        )
