"""The cases that every family runs in every cell: kind of model x attention implementation x dtype."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.kinds import kinds
from tests.models import Case

DTYPES = (torch.float32, torch.bfloat16)


def cases(*attention: str, dtypes: tuple[torch.dtype, ...] = DTYPES) -> list[Any]:
    """A parameter for every combination; what the release declares unsupported is skipped with its reason.

    A family that the release does not have is no case of it, rather than a skipped one.
    """
    return [
        pytest.param(case, id=str(case), marks=_marks(case))
        for case in (Case(kind, each, dtype) for kind in here() for each in attention for dtype in dtypes)
    ]


def here() -> list[str]:
    """The kinds whose family the installed release has, and hook points are for."""
    variants = mishformer_lens.variants
    return [name for name, kind in kinds().items() if kind.exists and variants[kind.family] is not None]


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    variant = mishformer_lens.variants[case.family]
    assert variant is not None, "the suite runs on releases that have a variant"
    if case.attention in variant.attention:
        return []
    return [pytest.mark.skip(reason=f"{case.attention}: {variant.unsupported[case.attention]}")]


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


@pytest.fixture(params=here())
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model."""
    return str(request.param)
