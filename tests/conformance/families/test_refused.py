"""Models whose configuration hook points are not for are refused, with the reason."""

from typing import Any

import pytest

import mishformer_lens
from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.patchers import FAMILIES
from tests.conformance.families.conftest import here
from tests.kinds import kinds
from tests.models import Case, make_model


def another(value: Any) -> Any:
    """Not that value."""
    return not value if isinstance(value, bool) else value + 1


REFUSED = [
    pytest.param(name, field, another(need.value), id=f"{name}-{field}")
    for name in here()
    for field, need in FAMILIES[kinds()[name].family].needs.items()
]


@pytest.mark.parametrize(("kind", "field", "value"), REFUSED)
def test_such_a_model_is_refused(kind: str, field: str, value: Any) -> None:
    model = make_model(Case(kind), **{field: value})
    family = kinds()[kind].family
    with pytest.raises(UnsupportedModelError, match=rf"this {family} model has {field}={value}: .*Needed"):
        mishformer_lens.instrument(model)
    assert not any("forward" in vars(part) for part in model.modules())
