"""Who listens at hook points, and that the modules around them are lent while somebody does."""

import threading
import types
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mishformer_lens.hooks import HookPoint

LOCK = threading.RLock()
"""Held while hooks come and go: one thread may take a hook off while another attaches one to the same module.

Reentrant: a finalizer may do either.
"""

Observer = Callable[[torch.Tensor, "HookPoint"], object]
"""What :meth:`mishformer_lens.HookPoint.add_observer` takes."""


class Together:
    """Hook points that begin and cease to listen together, as those of a cache do again and again.

    It works on their tables of attributes: a module's attributes are slow to read and slower to set, and a cache of
    everything has hundreds.
    """

    def __init__(self, points: Iterable["HookPoint"]) -> None:
        self.points = tuple(points)
        self._tables = tuple(vars(point) for point in self.points)
        self._places = tuple(dict.fromkeys([place for point in self.points for place in point.places]))

    def add_observers(self, observers: Sequence[Observer]) -> None:
        """Add all observers, one to each hook point, or none. That these are still on their model is known.

        Raises:
            NotInstrumentedError, UnsupportedModelError, ReplacedCodeError: one would never be called.
        """
        with LOCK:
            self._set([table for table in self._tables if not table["listening"]], True)
            for table, observer in zip(self._tables, observers, strict=True):
                table["observers"] = (*table["observers"], observer)

    def remove_observers(self, observers: Sequence[Observer]) -> None:
        """Take observers off again, one from each hook point."""
        with LOCK:
            silent = []
            for table, observer in zip(self._tables, observers, strict=True):
                known = table["observers"]
                newest = known and known[-1] is observer
                table["observers"] = others = known[:-1] if newest else _without_last(known, observer)
                if table["listening"] and not (others or table["_edits"]):
                    silent.append(table)
            self._set(silent, False)

    def set_listening(self, listening: bool) -> None:
        """Let all listen that did not, or no more, and their modules be lent patched classes, or no more.

        Raises:
            NotInstrumentedError, UnsupportedModelError, ReplacedCodeError: one would never be called.
        """
        self._set(self._tables, listening)

    def _set(self, tables: Sequence[dict[str, Any]], listening: bool) -> None:
        for table in tables:
            table["listening"] = listening
        try:
            self._tell_others()
        except BaseException:  # an interrupt, too, leaves everything as it was
            for table in tables:
                table["listening"] = False
            self._tell_others()
            raise

    def _tell_others(self) -> None:
        for place in self._places:
            place.update()
        # A place makes groups when it is lent for the first time.
        for group in dict.fromkeys([group for table in self._tables for group in table["groups"]]):
            group.look()


def _without_last(observers: tuple[Observer, ...], observer: Observer) -> tuple[Observer, ...]:
    """``observers`` without the last that is ``observer``: the same object, or the same method of the same object."""
    for index in reversed(range(len(observers))):
        each = observers[index]
        same_method = isinstance(each, types.MethodType) and isinstance(observer, types.MethodType)
        if each is observer or (
            same_method and each.__self__ is observer.__self__ and each.__func__ is observer.__func__  # type: ignore[attr-defined]
        ):
            return observers[:index] + observers[index + 1 :]
    return observers
