"""Models whose configuration hook points are not for are refused, with the reason."""

from typing import Any

import pytest

import mishformer_lens
from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.patchers import FAMILIES
from tests.conformance.families.conftest import here
from tests.kinds import kinds
from tests.models import Case, make_model

REFUSED = [
    pytest.param(name, field, value, id=f"{name}-{field}")
    for name in here()
    for field, value in FAMILIES[kinds()[name].family].refused
]


@pytest.mark.parametrize(("kind", "field", "value"), REFUSED)
def test_such_a_model_is_refused(kind: str, field: str, value: Any) -> None:
    model = make_model(Case(kind), **{field: value})
    with pytest.raises(UnsupportedModelError, match=f"{field}={value}"):
        mishformer_lens.instrument(model)
    assert not any("forward" in vars(part) for part in model.modules())
