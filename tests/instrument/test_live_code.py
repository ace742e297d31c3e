"""That no function of the installed modeling modules is taken for a replaced one, and every replaced one is named."""

import functools
import importlib
import importlib.util
import types
from collections.abc import Mapping
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.engine import as_edits
from mishformer_lens.engine.live_code import compiled_code, replaced_by
from mishformer_lens.patchers import FAMILIES

TRUSTED = ("transformers", "torch")

Codes = Mapping[str, tuple[types.CodeType, ...]]


HERE = {name: FAMILIES[name] for name, variant in mishformer_lens.variants.items() if variant is not None}
"""The families that the installed release has."""


@pytest.fixture(params=list(HERE.values()), ids=list(HERE))
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    return importlib.import_module(request.param.module_name)


@pytest.fixture
def codes(module: types.ModuleType) -> Codes:
    return codes_of(module.__name__)


@functools.cache
def codes_of(module: str) -> Codes:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    source = spec.loader.get_source(module)  # type: ignore[union-attr]
    return compiled_code(source, "<any>")


def place_of(module: types.ModuleType, name: str) -> tuple[Any, str]:
    owner, _, last = name.rpartition(".")
    return (vars(module)[owner] if owner else module), last


def replacement(module: types.ModuleType, codes: Codes, name: str) -> str | None:
    owner, last = place_of(module, name)
    return replaced_by(vars(owner)[last], codes[name], home=module.__name__, trusted=TRUSTED)


def block_of(module: types.ModuleType) -> str:
    """The class of a block: the one whose edits give what leaves the block."""
    variant = mishformer_lens.variants[module.__name__.split(".")[2]]
    assert variant is not None
    (block,) = [
        member.partition(".")[0]
        for member, edits in as_edits(variant.edits).items()
        if any("self.hook_resid_post(" in edit.after for edit in edits)
    ]
    return block


def test_every_function_and_method_runs_what_its_file_says(module: types.ModuleType, codes: Codes) -> None:
    # What torch.jit.script compiled has no code to compare.
    compared = [name for name in codes if not isinstance(vars(module).get(name), torch.jit.ScriptFunction)]
    found = {name: replacement(module, codes, name) for name in compared}
    assert found == dict.fromkeys(compared)
    assert len(found) > 10
    assert f"{block_of(module)}.forward" in found


def test_a_method_that_is_replaced_on_its_class_is_named(
    module: types.ModuleType, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None: ...

    name = f"{block_of(module)}.forward"
    owner, last = place_of(module, name)
    original = vars(owner)[last]
    for foreign in (forward, functools.wraps(original)(forward), torch.no_grad()(forward)):
        monkeypatch.setattr(owner, last, foreign)
        assert f"{__name__}.test_a_method_that_is_replaced" in str(replacement(module, codes, name))
    monkeypatch.setattr(owner, last, original)
    assert replacement(module, codes, name) is None


def test_a_method_that_is_wrapped_is_named_unless_torch_or_transformers_wrap_it(
    module: types.ModuleType, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{block_of(module)}.forward"
    owner, last = place_of(module, name)
    original = vars(owner)[last]

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, last, wrapper)
    assert f"{__name__}.test_a_method_that_is_wrapped" in str(replacement(module, codes, name))
    monkeypatch.setattr(owner, last, torch.no_grad()(original))
    assert replacement(module, codes, name) is None
    like = replaced_by(vars(owner)[last], codes[name], home=module.__name__, trusted=TRUSTED, like=original)
    assert "torch.utils._contextlib" in str(like)


def test_a_function_that_is_replaced_in_its_module_is_named(
    module: types.ModuleType, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*args: Any) -> None: ...

    for name in (each for each in codes if "." not in each):
        monkeypatch.setattr(module, name, other)
        assert "other" in str(replacement(module, codes, name))


def test_a_method_of_another_class_of_transformers_is_no_decorator(
    module: types.ModuleType, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{block_of(module)}.forward"
    owner, last = place_of(module, name)
    other = importlib.import_module("transformers.models.bart.modeling_bart").BartDecoderLayer.forward
    monkeypatch.setattr(owner, last, other)
    assert "modeling_bart.BartDecoderLayer.forward" in str(replacement(module, codes, name))
