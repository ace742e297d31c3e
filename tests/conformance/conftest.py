"""The cases that the conformance suite runs over: kind of model x attention implementation x dtype."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance import stand_in_kernel
from tests.kinds import kinds as families_kinds
from tests.models import KINDS, Case

stand_in_kernel.register()

DTYPES = (torch.float32, torch.bfloat16)


def cases(*attention: str, dtypes: tuple[torch.dtype, ...] = DTYPES, kinds: tuple[str, ...] = KINDS) -> list[Any]:
    """A parameter for every combination; what the release declares unsupported is skipped with its reason."""
    return [
        pytest.param(case, id=str(case), marks=_marks(case))
        for case in (Case(kind, each, dtype) for kind in kinds for each in attention for dtype in dtypes)
    ]


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    variant = mishformer_lens.variants[case.family]
    assert variant is not None, "the suite runs on releases that have a variant"
    kind = families_kinds().get(case.kind)
    for what in (case.attention, f"{case.attention} with alibi" if kind is not None and kind.alibi else ""):
        if what in variant.unsupported:
            return [pytest.mark.skip(reason=f"{what}: {variant.unsupported[what]}")]
    assert case.attention in variant.attention
    return []


@pytest.fixture(params=cases("eager", "sdpa"))
def case(request: pytest.FixtureRequest) -> Case:
    """Every kind x eager and sdpa x float32 and bfloat16."""
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture(params=cases("eager", "sdpa", dtypes=(torch.float32,)))
def float32_case(request: pytest.FixtureRequest) -> Case:
    """Every kind x eager and sdpa, in float32."""
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model."""
    return str(request.param)
