"""TransformerLens hook points in HuggingFace's own models, bit-exact until a hook acts.

Importing this package imports neither torch, transformers nor TransformerLens: public names are resolved when they are
used. The variants for the installed transformers are selected by the version that it says it has at import.
"""

import importlib
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mishformer_lens import errors
from mishformer_lens.errors import MishformerLensError, TransformersNotInstalledError, UnsupportedReleaseWarning
from mishformer_lens.patchers import FAMILIES, Variant
from mishformer_lens.patchers.installed import installed_release
from mishformer_lens.patchers.releases import OLDEST_RELEASE, has_number, is_too_old, select_by_release

if TYPE_CHECKING:
    from mishformer_lens.hooked_transformer import HookedTransformer
    from mishformer_lens.hooks import HookPoint
    from mishformer_lens.installation import install, uninstall
    from mishformer_lens.instrumentation import Instrumentation, instrument
    from mishformer_lens.mishax_export import to_mishax

__version__ = "0.1.0"

_LAZY = {
    "HookPoint": "mishformer_lens.hooks",
    "HookedTransformer": "mishformer_lens.hooked_transformer",
    "Instrumentation": "mishformer_lens.instrumentation",
    "install": "mishformer_lens.installation",
    "instrument": "mishformer_lens.instrumentation",
    "to_mishax": "mishformer_lens.mishax_export",
    "uninstall": "mishformer_lens.installation",
}

__all__ = [
    "HookPoint",
    "HookedTransformer",
    "Instrumentation",
    "MishformerLensError",
    "Variant",
    "errors",
    "install",
    "instrument",
    "to_mishax",
    "uninstall",
    "variants",
]


class _Variants(Mapping[str, Variant | None]):
    """Variants of families are put together when they are asked for."""

    def __init__(self, release: str | None) -> None:
        self._release = release
        self._selected: dict[str, Variant | None] = {}

    def __getitem__(self, family: str) -> Variant | None:
        if family not in self._selected:
            known, release = FAMILIES[family], self._release
            self._selected[family] = None if release is None else select_by_release(known, release)
        return self._selected[family]

    def __iter__(self) -> Iterator[str]:
        return iter(FAMILIES)

    def __len__(self) -> int:
        return len(FAMILIES)

    def __repr__(self) -> str:
        return repr(dict(self))


def _select() -> Mapping[str, Variant | None]:
    try:
        release = installed_release()
    except TransformersNotInstalledError as error:
        warnings.warn(str(error), UnsupportedReleaseWarning, stacklevel=3)
        return _Variants(None)
    if not has_number(release):
        warnings.warn(
            f"the version of the installed transformers is {release}, which is no number to select variants by: its "
            "source decides when a model is hooked.",
            UnsupportedReleaseWarning,
            stacklevel=3,
        )
    elif is_too_old(release):
        warnings.warn(
            f"transformers {release} is older than every variant: hooking a model will raise, unless its source is a "
            f"verified one. Upgrade transformers to {OLDEST_RELEASE} or later.",
            UnsupportedReleaseWarning,
            stacklevel=3,
        )
    return _Variants(release)


variants: Mapping[str, Variant | None] = _select()
"""Family to the variant that the version of the installed transformers points to.

None where it points to none: a family may be younger than the installed release. Whether a variant is proven for the
installed source is checked when a model is instrumented, which also says from which release on a family can be hooked.
"""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
