"""Hook points are refused where other code took the place of the family's own: they would never fire."""

from typing import Any

import pytest

import mishformer_lens
from mishformer_lens.errors import ReplacedCodeError
from mishformer_lens.patchers import FAMILIES
from tests.conformance.families.contract import contract
from tests.models import Case, make_model, make_tokens
from tests.outcome_plugin import family_of


def test_a_part_whose_forward_was_replaced_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = FAMILIES[family_of(kind)].module_name
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    classes = {type(place.find()) for place in instrumentation.places()}
    own: list[Any] = [cls for cls in classes if cls.__module__ == module]
    assert own
    for cls in own:
        original = cls.forward

        def another(self: Any, *arguments: Any, _original: Any = original, **others: Any) -> Any:
            return _original(self, *arguments, **others)

        with monkeypatch.context() as patch:
            patch.setattr(cls, "forward", another)
            with pytest.raises(ReplacedCodeError, match=cls.__name__), instrumentation.caching(list(contract(kind))):
                model(make_tokens())
