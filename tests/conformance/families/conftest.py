"""The cases that every family runs in every cell: kind of model x attention implementation x dtype."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.conftest import DTYPES
from tests.conformance.conftest import cases as cases_of
from tests.kinds import kinds
from tests.models import Case


def here() -> tuple[str, ...]:
    """The kinds whose family the installed release has, and hook points are for.

    A family that the release does not have is no case of it, rather than a skipped one.
    """
    variants = mishformer_lens.variants
    return tuple(name for name, kind in kinds().items() if kind.exists and variants[kind.family] is not None)


def cases(*attention: str, dtypes: tuple[torch.dtype, ...] = DTYPES) -> list[Any]:
    """A parameter for every combination of those kinds; what the release declares unsupported is skipped."""
    return cases_of(*attention, dtypes=dtypes, kinds=here())


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
