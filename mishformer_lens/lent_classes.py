"""The classes that live modules are lent, and how to get from them to what a module has without them."""

import copy
import copyreg
import dataclasses
import functools
import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mishformer_lens.errors import CheckpointingWarning

if TYPE_CHECKING:
    from mishformer_lens.lending import Place

PLACE = "_mishformer_lens"
"""The attribute of a lent module that says which place it has."""


@dataclasses.dataclass(frozen=True)
class LentClass:
    """A class to lend.

    Attributes:
        cls: the class. Its methods stand in its body from the beginning, where ``__init_subclass__`` and metaclasses of
            its bases see them.
        original: the class that it is lent in the place of.
    """

    cls: type
    original: type

    def __deepcopy__(self, memo: dict[int, Any]) -> "LentClass":
        return self


def make(original: type, bases: tuple[type, ...], methods: Mapping[str, object]) -> LentClass:
    """A class to lend to modules of the class ``original``.

    Args:
        bases: the classes to inherit from; ``original`` is one of them, or an ancestor of one.
        methods: more methods and properties of the class.
    """
    body = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__call__": _calling(original),
        "__reduce_ex__": _reducing(original),
        **methods,
    }
    # FSDP2's and parametrized modules say for themselves how they are copied, or that they are not.
    if not any("__deepcopy__" in vars(cls) for cls in original.__mro__):
        body["__deepcopy__"] = _deepcopy
    cls = types.new_class(original.__name__, bases, exec_body=lambda namespace: namespace.update(body))
    return LentClass(cls, original)


def without(cls: type, lent: LentClass) -> type:
    """``cls`` with the original in the place of the lent class.

    Other code may have put a class of its own on top of the lent one in between, as FSDP2 and parametrizations do: that
    class is made anew.
    """
    if cls is lent.cls:
        return lent.original
    if lent.cls not in cls.__mro__:
        return cls
    bases = tuple(without(base, lent) for base in cls.__bases__)
    body = {
        name: value
        for name, value in vars(cls).items()
        # What a base class's __init_subclass__ made of a lent method, it makes anew of the original.
        if name not in ("__dict__", "__weakref__") and not _stems_from(value, name, lent.cls)
    }
    return types.new_class(cls.__name__, bases, exec_body=lambda namespace: namespace.update(body))


def _stems_from(value: object, name: str, cls: type) -> bool:
    return isinstance(value, types.FunctionType) and unwrapped(value) is unwrapped(getattr(cls, name, None))


def unwrapped(function: Any) -> Any:
    """What is inside of all wrappers around ``function``."""
    return inspect.unwrap(function) if callable(function) else function


def _calling(original: Any) -> Callable[..., Any]:
    call = original.__call__

    @functools.wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        place: Place | None = vars(self).get(PLACE)
        if place is None:  # taken back since the call began
            return call(self, *args, **kwargs)
        if torch.compiler.is_compiling():
            place.refuse_export()
            return call(self, *args, **kwargs)
        place.enter()
        try:
            return call(self, *args, **kwargs)
        finally:
            place.leave()

    return __call__


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """A copy with its hooks."""
    duplicate = object.__new__(type(self))
    memo[id(self)] = duplicate
    vars(duplicate).update(copy.deepcopy(vars(self), memo))
    return duplicate


def _reducing(original: type) -> Callable[..., Any]:
    def __reduce_ex__(self: Any, _protocol: Any) -> Any:  # noqa: N807
        """Pickled, a lent module is one of its own class, without hooks: loading it needs nothing of this library."""
        state = self.__getstate__()
        place: Place | None = vars(self).get(PLACE)
        if place is not None:
            state = {name: value for name, value in state.items() if name not in place.attributes and name != PLACE}
        # What pickle itself uses for plain instances.
        return copyreg._reconstructor, (original, object, None), state  # type: ignore[attr-defined]

    return __reduce_ex__


def checkpointing_switch() -> property:
    """A block's ``gradient_checkpointing``: off while the block is lent.

    A block that is computed again in backward would meet its hooks a second time, or no more.
    """

    def read(self: Any) -> bool:
        asked = bool(vars(self).get("gradient_checkpointing", False))
        if asked and self.training:
            warn_of_checkpointing()
        return False

    def write(self: Any, value: bool) -> None:
        vars(self)["gradient_checkpointing"] = value

    return property(read, write)


def checkpointing_function(is_lent: Callable[[object], bool]) -> property:
    """A base model's ``_gradient_checkpointing_func``, which runs a block that is lent as it is.

    Args:
        is_lent: whether a module has hooks.
    """
    name = "_gradient_checkpointing_func"

    def read(self: Any) -> Callable[..., Any]:
        if name not in vars(self):
            raise AttributeError(name)
        checkpoint = vars(self)[name]

        def run(function: Any, *args: Any, **kwargs: Any) -> Any:
            called = function.func if isinstance(function, functools.partial) else function
            if not is_lent(getattr(called, "__self__", None)):
                return checkpoint(function, *args, **kwargs)
            warn_of_checkpointing()
            return function(*args, **kwargs)

        return run

    def write(self: Any, value: Callable[..., Any]) -> None:
        vars(self)[name] = value

    return property(read, write)


def warn_of_checkpointing() -> None:
    """Say that a block leaves gradient checkpointing."""
    warnings.warn(
        "gradient checkpointing is on, and hook points of a block have hooks: that block keeps its activations for the "
        "backward pass instead of computing them again. Blocks without hooks are checkpointed as ever.",
        CheckpointingWarning,
        stacklevel=3,
    )


def is_among(name: str, classes: Iterable[type]) -> bool:
    """Whether one of ``classes`` has an attribute of that name itself."""
    return any(name in vars(cls) for cls in classes)


def module_list(name: str, kept: Callable[[nn.Module], nn.Module | None]) -> property:
    """A base model's list of blocks, of which a thread may see a part.

    Args:
        name: its name on the base model.
        kept: the part that the calling thread sees of a base model's blocks; None for all.
    """

    def read(self: nn.Module) -> nn.Module | None:
        part = kept(self)
        return self._modules[name] if part is None else part

    # torch's own looks into its table of modules, and never asks the class.
    def write(self: nn.Module, value: nn.Module) -> None:
        self._modules[name] = value

    return property(read, write)
