"""TransformerLens hook points in HuggingFace's own models, bit-exact until a hook acts.

Importing this package imports neither torch, transformers nor TransformerLens: public names are resolved when they are
used. The variants for the installed transformers are selected at import, by the version that it says it has.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from mishformer_lens import errors
from mishformer_lens.errors import MishformerLensError, TransformersNotInstalledError, UnsupportedReleaseWarning
from mishformer_lens.patchers import FAMILIES, Variant
from mishformer_lens.patchers.installed import installed_release
from mishformer_lens.patchers.resolver import has_number, select_by_release

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


def _select() -> dict[str, Variant | None]:
    try:
        release = installed_release()
    except TransformersNotInstalledError as error:
        warnings.warn(str(error), UnsupportedReleaseWarning, stacklevel=3)
        return dict.fromkeys(FAMILIES)
    if not has_number(release):
        warnings.warn(
            f"the version of the installed transformers is {release}, which is no number to select variants by: its "
            "source decides when a model is hooked.",
            UnsupportedReleaseWarning,
            stacklevel=3,
        )
        return dict.fromkeys(FAMILIES)
    selected = {name: select_by_release(family, release) for name, family in FAMILIES.items()}
    missing = [name for name, variant in selected.items() if variant is None]
    if missing:
        warnings.warn(
            f"transformers {release} is older than every variant for {', '.join(missing)}: hooking such a model will "
            "raise, unless its source is a verified one. Upgrade transformers to 4.44 or later.",
            UnsupportedReleaseWarning,
            stacklevel=3,
        )
    return selected


variants: dict[str, Variant | None] = _select()
"""Family to the variant that the version of the installed transformers points to; None where it points to none.

Whether that variant is proven for the installed source is checked when a model is instrumented.
"""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
