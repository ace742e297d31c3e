"""Classes that other code puts on top of a module's own: the same on top of another.

FSDP2 and ``torch.nn.utils.parametrize`` give a module a class of their own, and so may anybody. What is put on top
while the module is lent a class stays when that is taken back. What parametrizes a module stays on top when it is lent
one, for torch takes it off again by its place.
"""

import inspect
import operator
import types
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

ORIGINAL = "_mishformer_lens_original"
"""The attribute of a class to lend that says in whose place."""


def parametrized(module: nn.Module) -> type | None:
    """The class that parametrizations put on top of that of ``module``; None where there is none, or not on top."""
    cls = type(module)
    if not parametrize.is_parametrized(module) or len(cls.__bases__) != 1:
        return None
    tensors: Any = module.parametrizations
    return cls if tensors.keys() <= vars(cls).keys() else None


def swapped(cls: type, others: Mapping[type, type]) -> type:
    """``cls`` on top of other classes: ``others`` says which class takes whose place. What is on top is made anew."""
    if cls in others:
        return others[cls]
    below = next((each for each in cls.__mro__ if each in others), None)
    if below is None:
        return cls
    cell = types.CellType()
    body = {name: _with_cell(value, cls, cell, ()) for name, value in own(cls, below).items()}
    _choose_copying(body, below, others[below])
    bases = tuple(swapped(base, others) for base in cls.__bases__)
    made = types.new_class(cls.__name__, bases, exec_body=lambda namespace: namespace.update(body))
    made.__qualname__, cell.cell_contents = cls.__qualname__, made
    return made


def own(cls: type, below: type) -> dict[str, Any]:
    """What ``cls`` has itself; without what a base class's ``__init_subclass__`` made of a method of ``below``."""
    return {
        name: value
        for name, value in vars(cls).items()
        if name not in ("__dict__", "__weakref__", "_abc_impl", ORIGINAL) and not _stems_from(value, name, below)
    }


def follow(cls: type, below: type, other: type, other_below: type) -> None:
    """Let ``cls`` on top of ``below`` have what ``other`` has by now on top of ``other_below``, and nothing else.

    torch adds and removes a property for each tensor that is parametrized.
    """
    before, now = own(cls, below), own(other, other_below)
    for name in (before.keys() | now.keys()) - {"__deepcopy__"}:
        if name not in now:
            delattr(cls, name)
        elif before.get(name) is not now[name]:
            setattr(cls, name, now[name])


def _choose_copying(body: dict[str, Any], before: type, now: type) -> None:
    """torch gives a parametrized class, which refuses to be pickled, a way to be copied where it finds none."""
    if "__deepcopy__" in vars(now):
        body.pop("__deepcopy__", None)
    elif "__getstate__" in body and "__deepcopy__" in vars(before):
        body["__deepcopy__"] = vars(before)["__deepcopy__"]


def unwrapped(function: Any) -> Any:
    """What is inside of all wrappers around ``function``."""
    return inspect.unwrap(function) if callable(function) else function


def _stems_from(value: object, name: str, cls: type) -> bool:
    return isinstance(value, types.FunctionType) and unwrapped(value) is unwrapped(getattr(cls, name, None))


def _with_cell(value: Any, cls: type, cell: types.CellType, around: tuple[object, ...]) -> Any:
    """``value``, a method or what is around one, where ``super()`` without arguments means the class in ``cell``."""
    if isinstance(value, staticmethod | classmethod):
        function = _with_cell(value.__func__, cls, cell, around)
        return value if function is value.__func__ else type(value)(function)
    if isinstance(value, property):
        old = (value.fget, value.fset, value.fdel)
        getter, setter, deleter = (_with_cell(each, cls, cell, around) for each in old)
        return value if (getter, setter, deleter) == old else property(getter, setter, deleter, value.__doc__)
    if not isinstance(value, types.FunctionType) or value in around:
        return value
    before = value.__closure__ or ()
    closure = tuple(_inner(each, cls, cell, (*around, value)) for each in before)
    return value if all(map(operator.is_, before, closure)) else _with_closure(value, closure)


def _inner(old: types.CellType, cls: type, cell: types.CellType, around: tuple[object, ...]) -> types.CellType:
    try:
        contents = old.cell_contents
    except ValueError:  # nothing is in it yet
        return old
    if contents is cls:
        return cell
    # What a decorator is around.
    inner = _with_cell(contents, cls, cell, around)
    return old if inner is contents else types.CellType(inner)


def _with_closure(function: types.FunctionType, closure: tuple[types.CellType, ...]) -> types.FunctionType:
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, closure
    )
    made.__kwdefaults__, made.__annotations__ = function.__kwdefaults__, function.__annotations__
    made.__doc__, made.__module__, made.__qualname__ = function.__doc__, function.__module__, function.__qualname__
    vars(made).update(vars(function))
    return made
