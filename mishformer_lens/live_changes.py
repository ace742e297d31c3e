"""Changes to live modules that can be taken back exactly."""

import copy
import copyreg
import types
from typing import Any

from torch import nn


class LiveChanges:
    """A record of what was changed on modules, undone in the reverse order."""

    def __init__(self) -> None:
        self._classes: list[tuple[nn.Module, type]] = []
        self._methods: list[tuple[nn.Module, str, types.MethodType]] = []
        self._attributes: list[tuple[nn.Module, str]] = []

    def set_class(self, module: nn.Module, new: type) -> None:
        """Make ``module`` an instance of ``new``.

        Bound methods that wrappers keep on the instance, as accelerate does when it dispatches a model, are bound anew.
        """
        old = type(module)
        self._classes.append((module, old))
        module.__class__ = new
        for name, method in list(vars(module).items()):
            if isinstance(method, types.MethodType) and method.__self__ is module:
                renewed = _renewed(method, old, new)
                if renewed is not None:
                    self._methods.append((module, name, method))
                    vars(module)[name] = types.MethodType(renewed, module)

    def set_attribute(self, module: nn.Module, name: str, value: object) -> None:
        """Put ``value`` into the instance, not among its registered modules."""
        self._attributes.append((module, name))
        vars(module)[name] = value

    def undo(self) -> None:
        """Give every module back as it was."""
        for module, name in reversed(self._attributes):
            vars(module).pop(name, None)
        for module, name, method in reversed(self._methods):
            vars(module)[name] = method
        for module, old in reversed(self._classes):
            module.__class__ = old
        self._classes.clear()
        self._methods.clear()
        self._attributes.clear()


def _renewed(method: types.MethodType, old: type, new: type) -> Any | None:
    """The function of ``new`` that took the place of the one bound in ``method``, if any did."""
    for name in {method.__func__.__name__, "forward"}:
        before, after = getattr(old, name, None), getattr(new, name, None)
        if before is method.__func__ and after is not before:
            return after
    return None


def make_copyable(patched: type, original: type, attributes: frozenset[str]) -> None:
    """Let instances of ``patched`` be copied with their hooks, and pickled without: as instances of ``original``.

    Args:
        attributes: names of instance attributes that a pickle leaves out.
    """

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return duplicate

    def reduce_ex(self: Any, _protocol: Any) -> Any:
        state = {name: value for name, value in vars(self).items() if name not in attributes}
        # What pickle itself uses for plain instances, so that loading needs nothing of this library.
        return copyreg._reconstructor, (original, object, None), state  # type: ignore[attr-defined]

    patched.__deepcopy__ = deepcopy  # type: ignore[attr-defined]
    patched.__reduce_ex__ = reduce_ex  # type: ignore[method-assign, assignment]
