"""Who listens at hook points, and that the modules around them are lent while somebody does."""

import threading
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from mishformer_lens.hooks import HookPoint

LOCK = threading.RLock()
"""Held while hooks come and go: one thread may take a hook off while another attaches one to the same module.

Reentrant: a finalizer may do either.
"""

Observer = Callable[[torch.Tensor, "HookPoint"], object]
"""What :meth:`mishformer_lens.HookPoint.add_observer` takes."""


def add_observers(observers: Sequence[tuple["HookPoint", Observer]]) -> None:
    """Add all observers, each to its hook point, or none. That the hook points are still on their model is known.

    Raises:
        NotInstrumentedError, UnsupportedModelError, ReplacedCodeError: one would never be called.
    """
    with LOCK:
        silent = [point for point, _ in observers if not point.listening]
        set_listening(silent, True)
        for point, observer in observers:
            point.__dict__["observers"] = (*point.observers, observer)


def remove_observers(observers: Sequence[tuple["HookPoint", Observer]]) -> None:
    """Take observers off their hook points again."""
    with LOCK:
        silent = []
        for point, observer in observers:
            point.__dict__["observers"] = others = _without_last(point.observers, observer)
            if point.listening and not others and not point.may_edit():
                silent.append(point)
        set_listening(silent, False)


def _without_last(observers: tuple[Observer, ...], observer: Observer) -> tuple[Observer, ...]:
    """``observers`` without the last that is ``observer``: the same object, or the same method of the same object."""
    if observers and observers[-1] is observer:
        return observers[:-1]
    for index in reversed(range(len(observers))):
        each = observers[index]
        same_method = isinstance(each, types.MethodType) and isinstance(observer, types.MethodType)
        if each is observer or (
            same_method and each.__self__ is observer.__self__ and each.__func__ is observer.__func__  # type: ignore[attr-defined]
        ):
            return observers[:index] + observers[index + 1 :]
    return observers


def set_listening(points: Sequence["HookPoint"], listening: bool) -> None:
    """Let hook points listen that did not, or no more, and their modules be lent patched classes, or no more."""
    for point in points:
        point.__dict__["listening"] = listening
    try:
        _tell_others(points)
    except BaseException:  # an interrupt, too, leaves everything as it was
        for point in points:
            point.__dict__["listening"] = False
        _tell_others(points)
        raise


def _tell_others(points: Sequence["HookPoint"]) -> None:
    for place in dict.fromkeys([place for point in points for place in point.places]):
        place.update()
    for group in dict.fromkeys([group for point in points for group in point.groups]):
        group.look()
