"""Classes that other code puts on top of a module's own, makes of it, or changes, while hooks are on."""

import abc
import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import mishformer_lens
from mishformer_lens.errors import ReplacedCodeError
from tests.instrument.live import logits, trace, zero
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, hooked

NAME = "blocks.1.mlp.hook_post"


def part(model: Any, name: str) -> Any:
    """A part of the second block, by TransformerLens's name."""
    return mishformer_lens.instrument(model).place(1, name).find()


# --- parametrizations


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.parametrize("when", ["before", "idle", "listening"])
@pytest.mark.parametrize("place", ["ln1", "mlp"])
def test_a_parametrized_part(kind: str, place: str, when: str) -> None:
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    name = {"ln1": "blocks.1.ln1.hook_normalized", "mlp": NAME}[place]
    target = {"ln1": "weight", "mlp": "act_scale"}[place]

    def change(each: Any) -> None:
        module = part(each, place)
        if place == "mlp":
            module.act_scale = nn.Parameter(torch.ones(()))
        parametrize.register_parametrization(module, target, Doubled())

    change(plain)
    cls = type(part(plain, place))
    if when == "before":
        change(model)
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching([name]):
        if when == "listening":
            change(model)
            with torch.no_grad():
                model(make_tokens())
    if when == "idle":
        change(model)
    assert_same(logits(model), logits(plain))
    with hooked(instrumentation.hook_points, {name: zero}):
        assert not torch.equal(logits(model), logits(plain))
    assert_same(logits(model), logits(plain))
    module = part(model, place)
    assert type(module).__name__ == cls.__name__
    assert parametrize.is_parametrized(module, target)
    parametrize.remove_parametrizations(module, target)
    assert type(module) is type(part(make_model(Case(kind)), place))


HOOKS = {"ln1": "blocks.1.ln1.hook_normalized", "mlp": NAME}

TENSORS = {"ln1": ("weight", "bias"), "mlp": ("act_scale", "act_shift")}
"""Tensors of a part that are parametrized. Those of an MLP are no tensors of HuggingFace's, and nothing reads them."""


def unchanged(module: Any, name: str) -> None:
    pass


def removed(module: Any, name: str) -> None:
    parametrize.remove_parametrizations(module, TENSORS[name][0])


def kept(module: Any, name: str) -> None:
    parametrize.remove_parametrizations(module, TENSORS[name][0], leave_parametrized=False)


def again(module: Any, name: str) -> None:
    parametrize.register_parametrization(module, TENSORS[name][0], Doubled())


def second(module: Any, name: str) -> None:
    parametrize.register_parametrization(module, TENSORS[name][1], Doubled())


def exchanged(module: Any, name: str) -> None:
    second(module, name)
    removed(module, name)


def taken_off_and_put_on(module: Any, name: str) -> None:
    removed(module, name)
    second(module, name)


@pytest.mark.parametrize("change", [unchanged, removed, kept, again, second, exchanged, taken_off_and_put_on])
@pytest.mark.parametrize("when", ["before", "listening"])
@pytest.mark.parametrize("name", ["ln1", "mlp"])
def test_parametrizations_come_and_go_while_hooks_are_on(
    name: str, when: str, change: Callable[[Any, str], None]
) -> None:
    plain, model = make_model(Case("gpt2")), make_model(Case("gpt2"))
    modules = [part(each, name) for each in (plain, model)]
    original = type(modules[0])
    point = mishformer_lens.instrument(model)[HOOKS[name]]

    def parametrized() -> None:
        for module in modules:
            if name == "mlp":
                module.act_scale, module.act_shift = (nn.Parameter(torch.ones(())) for _ in range(2))
            parametrize.register_parametrization(module, TENSORS[name][0], Doubled())

    if when == "before":
        parametrized()
    cls = type(modules[1])
    point.add_hook(zero)
    if when == "listening":
        parametrized()
    for module in modules:
        change(module, name)
    assert not torch.equal(logits(model), logits(plain))
    point.remove_hooks()
    assert_same(logits(model), logits(plain))
    theirs, ours = (type(module) for module in modules)
    assert list(vars(modules[1])) == list(vars(modules[0]))
    assert (ours is original) == (theirs is original)
    assert ours.__mro__[1:] == theirs.__mro__[1:]
    assert vars(ours).keys() == vars(theirs).keys()
    if when == "before" and change in (unchanged, again, second):
        assert ours is cls
    with hooked(mishformer_lens.instrument(model).hook_points, {HOOKS[name]: zero}):
        assert not torch.equal(logits(model), logits(plain))
    assert_same(logits(copy.deepcopy(model)), logits(plain))
    for module in modules:
        for tensor in list(getattr(module, "parametrizations", ())):
            parametrize.remove_parametrizations(module, tensor)
    assert type(modules[1]) is original
    assert_same(logits(model), logits(plain))


def test_a_copy_of_what_is_parametrized_and_looked_at_is_a_plain_one(model: Any) -> None:
    parametrize.register_parametrization(part(model, "ln1"), "weight", Doubled())
    before, expected = trace(copy.deepcopy(model)), logits(model)
    with mishformer_lens.instrument(model).caching():
        duplicate = copy.deepcopy(model)
    assert trace(duplicate)["classes"] == before["classes"]
    assert trace(duplicate)["attributes"] == before["attributes"]
    assert_same(logits(duplicate), expected)


def test_a_forward_on_the_class_of_a_parametrized_part_is_refused(model: Any) -> None:
    module = part(model, "ln1")
    parametrize.register_parametrization(module, "weight", Doubled())
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching():
        logits(model)
    cls: Any = type(module)
    cls.forward = lambda self, x: x
    expected = logits(model)
    with pytest.raises(ReplacedCodeError, match=r"ParametrizedLayerNorm has a forward of its own"):
        instrumentation[HOOKS["ln1"]].add_hook(zero)
    assert_same(logits(model), expected)
    del cls.forward
    with hooked(instrumentation.hook_points, {HOOKS["ln1"]: zero}):
        assert not torch.equal(logits(model), expected)


# --- what is set on the class of a module


@pytest.mark.parametrize("is_parametrized", [False, True])
def test_a_method_with_hooks_in_it_is_not_replaced_by_way_of_the_class_of_a_module(
    model: Any, is_parametrized: bool
) -> None:
    module, expected = part(model, "mlp"), logits(model)
    if is_parametrized:
        module.act_scale = nn.Parameter(torch.ones(()))
        parametrize.register_parametrization(module, "act_scale", Doubled())
    cls: Any = type(module)
    own = cls.__bases__[0] if is_parametrized else cls
    forward = cls.forward
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching([NAME]) as cache:
        for change in (
            lambda: setattr(type(module), "forward", lambda self, x: x * 0),
            lambda: delattr(type(module), "forward"),
        ):
            with pytest.raises(ReplacedCodeError, match=rf"forward of {own.__name__} was to be replaced.* Take the"):
                change()
        assert_same(logits(model), expected)
    assert list(cache) == [NAME]
    assert cls.forward is forward


def test_what_else_is_set_on_the_class_of_a_module_is_set_on_its_own_class(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = part(model, "mlp")
    cls: Any = type(module)
    with mishformer_lens.instrument(model).caching([NAME]):
        with monkeypatch.context() as patch:
            patch.setattr(type(module), "note", "mine", raising=False)
            assert vars(cls)["note"] == module.note == "mine"
        assert "note" not in vars(cls)
        type(module).note = "kept"
    assert module.note == "kept"
    del cls.note


def test_a_class_with_a_metaclass_of_its_own(model: Any) -> None:
    module = part(model, "mlp")

    class Abstract(type(module), abc.ABC):  # type: ignore[misc]
        pass

    module.__class__ = Abstract
    expected = logits(model)
    with hooked(mishformer_lens.instrument(model).hook_points, {NAME: zero}):
        assert isinstance(type(module), abc.ABCMeta)
        assert not torch.equal(logits(model), expected)
    assert type(module) is Abstract


# --- subclasses


def made_of(cls: type) -> Any:
    """A subclass that means the class above it in every way in which Python lets it."""

    def decorated(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return wrapper

    class Mine(cls):
        def forward(self, x: torch.Tensor) -> Any:
            return self.method(x) + self.value + type(self).of_class() + self.of_none()

        @decorated
        @torch.no_grad()
        def method(self, x: torch.Tensor) -> Any:
            return super().forward(x)

        @property
        def value(self) -> int:
            return len(super().__repr__())

        @classmethod
        def of_class(cls) -> int:
            return int(callable(super().__init_subclass__))

        @staticmethod
        def of_none() -> int:
            return len(__class__.__name__)  # type: ignore[name-defined]

    return Mine


def test_an_instance_of_a_subclass_of_a_lent_class_outlives_the_loan(model: Any) -> None:
    mlp = part(model, "mlp")
    x = torch.ones(1, 2, model.config.hidden_size, device=model.device)
    with mishformer_lens.instrument(model).caching([NAME]):
        classes: list[Any] = [type("Mine", (type(mlp),), {}), made_of(type(mlp))]
    classes.append(made_of(type(mlp)))
    found = []
    for cls in classes:
        other = cls(model.config) if model.config.model_type != "gpt2" else cls(48, model.config)
        other.load_state_dict(mlp.state_dict())
        found.append(other.to(model.device).eval()(x))
    assert_same(found[0], mlp(x).detach())
    assert_same(found[1], found[2])


def test_a_subclass_of_a_lent_class_that_a_module_is_given_outlives_the_loan(kind: str, model: Any) -> None:
    plain = make_model(Case(kind))
    theirs, ours = part(plain, "mlp"), part(model, "mlp")
    original = type(ours)
    theirs.__class__ = made_of(original)
    with mishformer_lens.instrument(model).caching([NAME]):
        ours.__class__ = made_of(type(ours))
        assert_same(logits(model), logits(plain))
    assert_same(logits(model), logits(plain))
    assert type(ours).__mro__[1:] == type(theirs).__mro__[1:]
    assert type(ours).__qualname__ == type(theirs).__qualname__
    with pytest.raises(ReplacedCodeError, match="Mine has a forward of its own"):
        mishformer_lens.instrument(model)[NAME].add_hook(zero)
