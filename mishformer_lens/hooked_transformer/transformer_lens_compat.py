"""All that differs between the releases of TransformerLens, from 2.15.4 to 4.3.

This is the only module that asks for TransformerLens's version. The others import from here what has moved, and find
in ``HAS_OWN_HOOKED_TRANSFORMER`` what is gone.
"""

import importlib.metadata
from typing import Final

from packaging.version import Version
from transformers.utils import logging

from mishformer_lens.errors import TransformerLensNotInstalledError, TransformerLensUnusableError

_INSTALL = "pip install 'mishformer-lens[transformer-lens]'"

try:
    RELEASE: Final = Version(importlib.metadata.version("transformer-lens"))
except importlib.metadata.PackageNotFoundError:
    raise TransformerLensNotInstalledError(
        "HookedTransformer stands on TransformerLens, which is not installed. "
        f"Run {_INSTALL}. instrument(model) works without it."
    ) from None

# Some releases of TransformerLens silence transformers when they are imported.
_verbosity = logging.get_verbosity()
try:
    from transformer_lens import ActivationCache, FactoredMatrix
except (ImportError, AttributeError, RuntimeError, TypeError, ValueError) as error:
    raise TransformerLensUnusableError(
        f"HookedTransformer stands on TransformerLens, and TransformerLens {RELEASE} cannot be imported here: {error} "
        f"({type(error).__name__}). Run {_INSTALL} in an environment of its own, which brings releases that go "
        "together. instrument(model) works without it."
    ) from error
finally:
    logging.set_verbosity(_verbosity)

HAS_OWN_HOOKED_TRANSFORMER: Final = Version("4.0") > RELEASE
"""Whether TransformerLens has a ``HookedTransformer`` of its own."""

IS_REFERENCE: Final = Version("3.0") > RELEASE
"""Whether TransformerLens's own ``HookedTransformer`` is that of 2.x, whose meanings this package keeps."""

SVD_INTERPRETER_READS_PARAMETERS: Final = Version("3.0") > RELEASE
"""Whether ``SVDInterpreter`` wants TransformerLens's names in ``named_parameters()``; here those are HuggingFace's."""

if Version("3.5.1") > RELEASE:
    from transformer_lens.hook_points import HookedRootModule
else:
    from transformer_lens import HookedRootModule

if Version("3.0") > RELEASE:
    from transformer_lens import HookedTransformerKeyValueCache as KeyValueCache
    from transformer_lens import utils
else:
    from transformer_lens import TransformerLensKeyValueCache as KeyValueCache
    from transformer_lens import utilities as utils

__all__ = [
    "HAS_OWN_HOOKED_TRANSFORMER",
    "IS_REFERENCE",
    "RELEASE",
    "SVD_INTERPRETER_READS_PARAMETERS",
    "ActivationCache",
    "FactoredMatrix",
    "HookedRootModule",
    "KeyValueCache",
    "utils",
]
