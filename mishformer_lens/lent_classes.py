"""The classes that live modules are lent, and how to get from them to what a module has without them."""

import copy
import copyreg
import dataclasses
import functools
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mishformer_lens.errors import CheckpointingWarning, ReplacedCodeError
from mishformer_lens.on_top import ORIGINAL, follow, own, swapped

if TYPE_CHECKING:
    from mishformer_lens.lending import Place

PLACE = "_mishformer_lens"
"""The attribute of a lent module that says which place it has."""


class _Lent(type):
    """The metaclass of lent classes: what other code sets on ``type(module)`` is meant for the module's own class."""

    def __setattr__(cls, name: str, value: object) -> None:
        original = _meant(cls, name)
        if original is None:
            super().__setattr__(name, value)
        else:
            setattr(original, name, value)

    def __delattr__(cls, name: str) -> None:
        original = _meant(cls, name)
        if original is None:
            super().__delattr__(name)
        else:
            delattr(original, name)


def _meant(cls: type, name: str) -> type | None:
    """The class on which to set ``name``; None for ``cls`` itself: others made it, or it hands over what it is given.

    Raises:
        ReplacedCodeError: on the module's own class it would not act before the last hook is gone.
    """
    if ORIGINAL not in vars(cls):  # it may be in the making, too
        return None
    lent = next(each for each in cls.__mro__ if vars(each).get(ORIGINAL) in cls.__mro__)
    original: type = vars(lent)[ORIGINAL]
    if _is_lent(name, lent, original):
        raise ReplacedCodeError(
            f"{name} of {original.__name__} was to be replaced, by way of type(module), while hooks are on the module: "
            "they are in the code that it would replace. Take the hooks off before."
        )
    return original if lent is cls else None


def _is_lent(name: str, cls: type, original: type) -> bool:
    return is_among(name, cls.__mro__[: cls.__mro__.index(original)])


@functools.cache
def _metaclass(meta: type) -> type:
    return _Lent if meta is type else type(meta.__name__, (_Lent, meta), {})


@dataclasses.dataclass(frozen=True)
class LentClass:
    """A class to lend.

    Attributes:
        cls: the class. Its methods stand in its body from the beginning, where ``__init_subclass__`` and metaclasses of
            its bases see them.
        original: the class that it is lent in the place of.
        beneath: what it is on top of, where torch parametrizes the module.
    """

    cls: type
    original: type
    beneath: "LentClass | None" = None

    def follow_original(self) -> None:
        """Have what was put on the original meanwhile.

        Raises:
            ReplacedCodeError: it has a method of its own in the place of one that is lent.
        """
        if self.beneath is not None:
            _refuse_hiding(self.original, self.beneath)
            follow(self.cls, self.beneath.cls, self.original, self.beneath.original)

    def hand_over(self) -> None:
        """Let the original have what was put on this meanwhile."""
        if self.beneath is not None:
            follow(self.original, self.beneath.original, self.cls, self.beneath.cls)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LentClass":
        return self


def make(
    original: type, bases: tuple[type, ...], forward: Callable[..., Any], methods: Mapping[str, object]
) -> LentClass:
    """A class to lend to modules of the class ``original``.

    Args:
        bases: the classes to inherit from; ``original`` is one of them, or an ancestor of one.
        forward: the patched forward.
        methods: more methods and properties of the class.
    """
    body = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__new__": _creating(original),
        "__call__": _calling(original),
        "__reduce_ex__": _reducing(original),
        **methods,
        "forward": _guarded(forward, original),
    }
    # FSDP2's and parametrized modules say for themselves how they are copied, or that they are not.
    if not any("__deepcopy__" in vars(cls) for cls in original.__mro__):
        body["__deepcopy__"] = _deepcopy
    arguments = {"metaclass": _metaclass(type(original))}
    cls = types.new_class(original.__name__, bases, arguments, lambda namespace: namespace.update(body))
    setattr(cls, ORIGINAL, original)
    return LentClass(cls, original)


@functools.lru_cache(maxsize=256)
def over(cls: type, lent: LentClass) -> LentClass:
    """What to lend in the place of ``cls``, which is on top of ``lent.original``: the same on top of the lent class."""
    made = swapped(cls, {lent.original: lent.cls})
    setattr(made, ORIGINAL, cls)
    return LentClass(made, cls, lent)


def _refuse_hiding(cls: type, lent: LentClass) -> None:
    for name in own(cls, lent.original):
        if not name.startswith("__") and _is_lent(name, lent.cls, lent.original):
            raise ReplacedCodeError(
                f"{cls.__name__} has a {name} of its own in the place of {lent.original.__name__}'s, which hook points "
                "are in: it need not run it, so a hook might never fire. Take it off before hooks are added."
            )


def without(cls: type, lent: LentClass) -> type:
    """``cls`` with the original in the place of the lent class: other code may have put one of its own on top."""
    if lent.beneath is None:
        return lent.original if cls is lent.cls else swapped(cls, {lent.cls: lent.original})
    return swapped(cls, {lent.cls: lent.original, lent.beneath.cls: lent.beneath.original})


def _creating(original: Any) -> Callable[..., Any]:
    def __new__(cls: type, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        """What other code makes of ``type(module)`` while the module is lent its class is of the module's own."""
        # Bare, as copies and replicas are made, it is asked for an instance of this very class.
        made_anew = ORIGINAL in vars(cls) and (args or kwargs)
        return original(*args, **kwargs) if made_anew else original.__new__(cls)

    return __new__


def _calling(original: Any) -> Callable[..., Any]:
    @functools.wraps(original.__call__)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        place: Place | None = self.__dict__.get(PLACE)
        if place is None:  # taken back since the call began
            return original.__call__(self, *args, **kwargs)
        parent, passes = place.parent, place.passes
        if parent is None or not parent.passes:  # what is around it has looked at all that is inside
            place.refuse()
        # A graph runs as a whole: no hook comes or goes meanwhile. Where it breaks, in what is called here, torch gives
        # up compiling this function, because of the try, and runs it as it is.
        counted = not torch.compiler.is_compiling()
        if counted:
            passes.append(None)
        try:
            return original.__call__(self, *args, **kwargs)
        finally:
            if counted:
                passes.pop()
                if place.waiting:
                    place.settle_waiting()

    return __call__


def _guarded(forward: Callable[..., Any], original: Any) -> Callable[..., Any]:
    """``forward`` for modules that are lent: others have nothing that it could call.

    Other code may keep a bound method, or the class, while the module is lent, and use it afterwards.
    """

    @functools.wraps(forward)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if PLACE in self.__dict__:
            return forward(self, *args, **kwargs)
        return original.forward(self, *args, **kwargs)

    return guarded


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """A copy with its hooks; a plain one, where there are but observers, which are somebody's who looks at this one."""
    values = dict(vars(self))
    place: Place | None = values.get(PLACE)
    cls = type(self)
    if place is not None and not place.is_edited:
        cls = without(cls, place.loan.lent)
        for name in (*place.attributes, PLACE):
            values.pop(name, None)
    duplicate = object.__new__(cls)
    memo[id(self)] = duplicate
    vars(duplicate).update(copy.deepcopy(values, memo))
    vars(duplicate).update(rebound(duplicate, type(self), cls))
    return duplicate


def rebound(module: nn.Module, old: type, new: type) -> Iterator[tuple[str, types.MethodType]]:
    """Bound methods of ``old`` that other code keeps on the instance, bound anew to those of ``new``."""
    for name, method in list(vars(module).items()):
        if isinstance(method, types.MethodType) and method.__self__ is module:
            for attribute in (method.__func__.__name__, "forward"):
                if any(vars(each).get(attribute) is method.__func__ for each in old.__mro__):
                    yield name, types.MethodType(getattr(new, attribute), module)
                    break


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
    """A block's ``gradient_checkpointing``: off in the passes of a block that is lent.

    A block that is computed again in backward would meet its hooks a second time, or no more.
    """

    def read(self: Any) -> bool:
        if not self.__dict__.get("gradient_checkpointing", False):
            return False
        place: Place | None = vars(self).get(PLACE)
        if place is None or not (place.is_running or torch.compiler.is_compiling()):
            return True
        if self.training:
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
