"""Hook every supported model that is created from now on."""

import functools
import importlib
import threading
from typing import Any

from torch import nn

from mishformer_lens.errors import NotInstrumentedError
from mishformer_lens.instrumentation import instrument
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.resolver import resolve_imported

_lock = threading.Lock()
_originals: dict[type[nn.Module], Any] = {}


def install(*, allow_unverified: bool | None = None) -> None:
    """From now on, every GPT-2 and GPT-NeoX model is hooked when it is created, whoever creates it.

    The base classes' ``__init__`` is wrapped, and the finished instance is instrumented; so it does not matter under
    which name, from which attention-class dictionary or by which ``Auto`` class the parts are made. Models that exist
    already stay as they are. Installing twice changes nothing.

    Raises:
        ResolutionError: a family has no proven variant for the installed release; then nothing is installed.
    """
    with _lock:
        classes = []
        for family in FAMILIES.values():
            module = importlib.import_module(family.module_name)
            resolve_imported(family, module, allow_unverified)
            classes.append(getattr(module, family.base_model))
        for cls in classes:
            if cls not in _originals:
                _originals[cls] = cls.__init__
                cls.__init__ = _instrumenting(cls.__init__, allow_unverified)


def uninstall() -> None:
    """Undo :func:`install`. Models that were created in between keep their hook points.

    Raises:
        NotInstrumentedError: nothing is installed.
    """
    with _lock:
        if not _originals:
            raise NotInstrumentedError("nothing is installed: call mishformer_lens.install() first.")
        for cls, original in _originals.items():
            cls.__init__ = original  # type: ignore[method-assign]
        _originals.clear()


def _instrumenting(original: Any, allow_unverified: bool | None) -> Any:
    @functools.wraps(original)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        instrument(self, allow_unverified=allow_unverified)

    return init
