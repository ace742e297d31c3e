"""What is known of each model family and each release of transformers: data, and the resolver that picks from it."""

import importlib
import pkgutil

from mishformer_lens.patchers.family import Family, Variant


def _families() -> dict[str, Family]:
    # Folders called `…_like` are templates: no model is of one by itself.
    folders = [info.name for info in pkgutil.iter_modules(__path__) if info.ispkg and not info.name.endswith("_like")]
    modules = [importlib.import_module(f"{__name__}.{folder}") for folder in folders]
    return {module.FAMILY.name: module.FAMILY for module in modules}


FAMILIES: dict[str, Family] = _families()
"""Every family, by its name: one per folder."""

__all__ = ["FAMILIES", "Family", "Variant"]
