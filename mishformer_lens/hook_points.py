"""The hook points of one live model, by name."""

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from mishformer_lens.hooks import HookPoint
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.contract import HookSpec

if TYPE_CHECKING:
    from mishformer_lens.instrumentation import Instrumentation


Absent = tuple[frozenset[str], ...]
"""Block by block, the names of parts and hook points of the family that a block lacks."""


class Form(NamedTuple):
    """What of its family a live model has.

    Attributes:
        absent: what its blocks lack.
        experts: block by block, how many experts it has; none where it has an MLP.
        absent_from_model: likewise what it lacks beside its blocks.
    """

    absent: Absent
    experts: tuple[int, ...]
    absent_from_model: frozenset[str]

    def blocks(self) -> Iterator[tuple[frozenset[str], int]]:
        """Block by block, what it lacks and how many experts it has."""
        return zip(self.absent, self.experts, strict=True)


class HookPoints(Mapping[str, HookPoint]):
    """The hook points of a live model by TransformerLens's names, in the order in which they fire.

    The names follow the blocks that the model has. A hook point is made when it is first asked for.
    """

    def __init__(self, instrumentation: "Instrumentation") -> None:
        self._instrumentation = instrumentation
        self.made: dict[str, HookPoint] = {}

    def __getitem__(self, name: str) -> HookPoint:
        made = self.made.get(name)
        if made is None:
            name = self._own_name(name)
            # Two threads may ask at once: the first that is kept counts.
            made = self.made.get(name) or self.made.setdefault(name, self._make(name))
        return made

    def _own_name(self, name: str) -> str:
        """The name of the hook point that ``name`` is another name of, if it is one."""
        aliases, parts = self._instrumentation.family.aliases, name.split(".")
        return ".".join([*parts[:2], aliases[parts[2]], *parts[3:]]) if len(parts) > 3 and parts[2] in aliases else name

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._own_name(name) in self.names()

    def names(self) -> Mapping[str, HookSpec]:
        """The names, each with what is told of its hook point, as the model is now."""
        return _names(self._instrumentation.family, self._instrumentation.form())

    def _make(self, name: str) -> HookPoint:
        family, form = self._instrumentation.family, self._instrumentation.form()
        spec = _names(family, form)[name]
        layer = int(name.split(".", 2)[1]) if name.startswith("blocks.") else None
        parts = family.places_of(spec, frozenset() if layer is None else form.absent[layer])
        point = HookPoint()
        point.name = name
        point.shared = spec.shared
        point.belong(*(self._instrumentation.place(layer, part) for part in parts))
        return point


@functools.lru_cache(maxsize=64)
def _names(family: Family, form: Form) -> dict[str, HookSpec]:
    return {
        **{spec.name: spec for spec in family.embedding_hooks},
        **{
            f"blocks.{layer}.{spec.name}": spec
            for layer, (missing, n_experts) in enumerate(form.blocks())
            for spec in family.hooks_of(missing, n_experts)
        },
        **{spec.name: spec for spec in family.final_hooks if family.has(spec, form.absent_from_model)},
    }


@functools.lru_cache(maxsize=64)
def unflagged(family: Family, form: Form) -> tuple[str, ...]:
    """The names of hook points that TransformerLens fires with all its flags off."""
    return tuple(name for name, spec in _names(family, form).items() if not spec.flag)
