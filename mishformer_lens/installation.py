"""Prove every supported model that is created from now on."""

import functools
import threading
from typing import Any

from torch import nn

from mishformer_lens.errors import FamilyNotInReleaseError, NotInstrumentedError, ReleaseTooOldError
from mishformer_lens.instrumentation import instrument
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.resolver import modeling_module, resolve_imported

_lock = threading.Lock()


def install(*, allow_unverified: bool | None = None) -> None:
    """From now on, see to it that every model of a supported family can be hooked when it is created, whoever
    creates it.

    The base classes' ``__init__`` is wrapped, and the instance is instrumented; so it does not matter under which name,
    from which attention-class dictionary or by which ``Auto`` class the parts are made. A model that has no place for
    hook points is refused there and then, not when the first hook is added. Its hook points are those that
    :func:`mishformer_lens.instrument` gives. Models that exist already stay as they are. Installing twice changes
    nothing. Families that the installed release does not have, or not in a form that can be hooked, are left out.

    Raises:
        ResolutionError: a family has no proven variant for the installed release, or none can be hooked in it; then
            nothing is installed.
    """
    with _lock:
        classes: list[Any] = []
        too_old: Exception | None = None
        for family in FAMILIES.values():
            try:
                module = modeling_module(family)
                resolve_imported(family, module, allow_unverified)
            except (FamilyNotInReleaseError, ReleaseTooOldError) as error:
                too_old = error
                continue
            classes.append(getattr(module, family.base_model))
        if not classes and too_old is not None:
            raise too_old
        for cls in classes:
            if cls not in _installed:
                _installed[cls] = _Installed(cls, allow_unverified)


def uninstall() -> None:
    """Undo :func:`install`. What other code wrapped around an ``__init__`` in between stays there.

    Raises:
        NotInstrumentedError: nothing is installed.
    """
    with _lock:
        if not _installed:
            raise NotInstrumentedError("nothing is installed: call mishformer_lens.install() first.")
        for each in _installed.values():
            each.undo()
        _installed.clear()


class _Installed:
    """The wrapper around the ``__init__`` of one class."""

    def __init__(self, cls: Any, allow_unverified: bool | None) -> None:
        self._cls = cls
        self._original = original = cls.__init__
        self._active = True

        @functools.wraps(original)
        def init(model: nn.Module, *args: Any, **kwargs: Any) -> None:
            original(model, *args, **kwargs)
            if self._active:
                instrument(model, allow_unverified=allow_unverified)

        self._wrapper = cls.__init__ = init

    def undo(self) -> None:
        """Take the wrapper off; where another was put around it, let it do nothing more."""
        self._active = False
        if self._cls.__init__ is self._wrapper:
            self._cls.__init__ = self._original


_installed: dict[type, _Installed] = {}
