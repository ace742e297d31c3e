"""One test per hook point, so that recorded outcomes can say of each what it does in a release."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.conftest import cases
from tests.conformance.contract import contract, shape
from tests.models import Case, make_model, make_tokens
from tests.recording import hooked, noise_like, recorded


def _parameters() -> list[Any]:
    """Every hook point outside blocks and in the last block, by its name without the block's number."""
    return [
        pytest.param(case, name.replace("blocks.1.", ""), id=f"{parameter.id}-{name}", marks=parameter.marks)
        for parameter in cases("eager", "sdpa")
        for (case,) in [parameter.values]
        for name in contract(case.kind)
        if not name.startswith("blocks.0.")
    ]


@pytest.mark.parametrize(("case", "hook_point"), _parameters())
def test_hook_point(case: Case, hook_point: str) -> None:
    name = hook_point if hook_point in contract(case.kind) else f"blocks.1.{hook_point}"
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    with torch.no_grad(), recorded(points, [name]) as values:
        expected = model(make_tokens()).logits
        (activation,) = values[name]
        assert tuple(activation.shape) == shape(case.kind, name)
        with hooked(points, {name: lambda activation, hook: activation.clone()}):
            assert torch.equal(model(make_tokens()).logits, expected)
        with hooked(points, {name: lambda activation, hook: activation + noise_like(activation)}):
            assert not torch.equal(model(make_tokens()).logits, expected)
