"""One plain model of each kind."""

from typing import Any

import pytest

from tests.models import KINDS, Case, make_model


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str) -> Any:
    return make_model(Case(kind))
