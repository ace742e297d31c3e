"""What is known of each model family and each release of transformers: data, and the resolver that picks from it."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from mishformer_lens.patchers.family import Family, Variant


class _Families(Mapping[str, Family]):
    """A description is imported when it is first asked for: most programs ask for one."""

    def __init__(self) -> None:
        # Folders called `…_like` are templates: no model is of one by itself.
        found = (info.name for info in pkgutil.iter_modules(__path__) if info.ispkg and not info.name.endswith("_like"))
        self._read: dict[str, Family | None] = dict.fromkeys(found)

    def __getitem__(self, name: str) -> Family:
        family = self._read[name]
        if family is None:
            family = self._read[name] = importlib.import_module(f"{__name__}.{name}").FAMILY
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    def __contains__(self, name: object) -> bool:
        return name in self._read


FAMILIES: Mapping[str, Family] = _Families()
"""Every family, by its name: one per folder, which has that name too."""

__all__ = ["FAMILIES", "Family", "Variant"]
