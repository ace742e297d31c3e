"""From the class that a part of a live model has to the class to lend it: patched code, once it is proven.

A file says what was written. Before code from it takes the place of living code, the living code is compared with it.
"""

import functools
import importlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from mishformer_lens.engine import BuiltMembers, build_members, patch_source, replaced_by
from mishformer_lens.errors import ReplacedCodeError, UnsupportedModelError
from mishformer_lens.lending import Place
from mishformer_lens.lent_classes import (
    PLACE,
    LentClass,
    checkpointing_function,
    checkpointing_switch,
    is_among,
    make,
    module_list,
)
from mishformer_lens.loans import Links
from mishformer_lens.norms import HookedLayerNorm
from mishformer_lens.on_top import unwrapped
from mishformer_lens.partial import kept_blocks
from mishformer_lens.patchers import Family, Variant
from mishformer_lens.patchers.installed import Source
from mishformer_lens.patchers.resolver import code_of

# They only write documentation, and some of them fail where the code has no file.
DOCUMENTATION_DECORATORS = frozenset(
    {
        "auto_docstring",
        "add_start_docstrings",
        "add_start_docstrings_to_model_forward",
        "add_code_sample_docstrings",
        "add_end_docstrings",
        "replace_return_docstrings",
    }
)

# What they make of a class calls its own forward, or others where the configuration says so.
WRAPPING_DECORATORS = frozenset({"use_experts_implementation"})

# Whose decorators are part of a release's code.
_TRUSTED = ("transformers", "torch")

_lock = threading.RLock()


class PatchedModule:
    """A family's module of transformers, as it is in this process, with the patched members of one variant.

    Where the module is imported anew, the classes are others: that is another patched module.
    """

    def __init__(self, family: Family, variant: Variant, source: Source) -> None:
        self.module = importlib.import_module(family.module_name)
        self.built: BuiltMembers = build_members(
            self.module,
            patch_source(source.text, variant.edits),
            label=f"mishformer_lens {family.name} {variant.name}",
            drop_decorators=DOCUMENTATION_DECORATORS,
        )
        self._code = code_of(source)
        self._proven: set[object] = set()

    def original_of(self, cls: type) -> type | None:
        """The nearest ancestor of ``cls``, or itself, that has a patched class."""
        return next((each for each in cls.__mro__ if each in self.built.classes), None)

    def _used_by(self, original: type) -> dict[str, type | None]:
        return {name: self.built.originals[name][0] for name in self.built.uses[original]}

    def _forward_of(self, original: type) -> dict[str, type | None]:
        """The forward that has to be the file's even where it is as it was: it calls what is patched."""
        owner = next((each for each in original.__mro__ if "forward" in vars(each)), None)
        name = "" if owner is None else f"{owner.__qualname__}.forward"
        own = owner is not None and owner.__module__ == self.module.__name__ and name in self._code
        return {name: owner} if own else {}

    def _is_wrapped(self, owner: type | None) -> bool:
        """Whether a decorator of the class put a wrapper around what its file says: patched methods have none."""
        return owner is not None and not WRAPPING_DECORATORS.isdisjoint(self.built.decorators.get(owner, ()))

    def prove(self, original: type) -> Links:
        """Compare the living code that the patched class of ``original`` stands in for with the code in the file.

        Returns:
            what was compared: as long as that is there, it is proven.

        Raises:
            ReplacedCodeError: other code replaced some of it.
        """
        proofs = []
        for name, owner in {**self._forward_of(original), **self._used_by(original)}.items():
            attribute = name.rpartition(".")[2]
            table = vars(self.module if owner is None else owner)
            living = table.get(attribute)
            proofs.append((table, attribute, living))
            if living in self._proven:
                continue
            patched: object = None
            if name in self.built.originals and not self._is_wrapped(owner):
                patched = (
                    self.built.functions[name] if owner is None else vars(self.built.classes[owner]).get(attribute)
                )
            by = replaced_by(
                living,
                self._code[name],
                home=self.module.__name__,
                trusted=_TRUSTED,
                like=patched,
                like_file=self.built.filename,
            )
            if by is not None:
                raise ReplacedCodeError(
                    f"{name} of {self.module.__name__} was replaced by {by}. A hook point in it would run what "
                    "transformers has instead, and change the output. Take that off to use hook points there, or hook "
                    "parts of the model that do not run it."
                )
            self._proven.add(living)
        return tuple(proofs)


_patched: dict[tuple[str, str, Source], list[PatchedModule]] = {}


def patched_module(family: Family, variant: Variant, source: Source, cls: type) -> PatchedModule | None:
    """The patched module whose classes ``cls`` inherits from; None where it inherits from none."""
    with _lock:
        known = _patched.setdefault((family.name, variant.name, source), [])
        for each in known:
            if each.original_of(cls) is not None:
                return each
        living = vars(importlib.import_module(family.module_name))
        if any(all(living.get(cls.__name__) is cls for cls in each.built.classes) for each in known):
            return None
        made = PatchedModule(family, variant, source)
        known.append(made)
        return made if made.original_of(cls) is not None else None


def lent_class(family: Family, variant: Variant, source: Source, place: Place, cls: type) -> tuple[LentClass, Links]:
    """The class to lend to a module of the class ``cls`` at ``place``, and the living code for which that is right.

    Args:
        source: the source of the family's module.

    Raises:
        UnsupportedModelError: ``cls`` is of no class that this part of the family has.
        ReplacedCodeError: other code replaced what the hook points would be in.
    """
    refuse_foreign(family, variant, source, place, cls)
    if _is_layer_norm(family, place):
        return _layer_norm(cls), ()
    patched = patched_module(family, variant, source, cls)
    assert patched is not None  # it was not refused
    original = patched.original_of(cls)
    assert original is not None
    proofs = patched.prove(original)
    blocks = place.layer is None and family.components["blocks"]
    return _patched_class(cls, original, patched, blocks), proofs


def refuse_foreign(family: Family, variant: Variant, source: Source, place: Place, cls: type) -> None:
    """Refuse a part of a class that hook points cannot be put on.

    Raises:
        UnsupportedModelError: it is of none that this part of the family has.
    """
    if _is_layer_norm(family, place):
        if not issubclass(cls, nn.LayerNorm):
            raise UnsupportedModelError(
                f"{cls.__name__} stands at {place.path}, where {family.name} has a torch.nn.LayerNorm. Instrument the "
                "model before its layer norms are replaced."
            )
    elif patched_module(family, variant, source, cls) is None:
        raise UnsupportedModelError(
            f"{cls.__module__}.{cls.__name__} stands at {place.path}, where a part of {family.name} is expected. "
            "Instrument the model before parts of it are wrapped or replaced."
        )


def _is_layer_norm(family: Family, place: Place) -> bool:
    """Whether torch's layer norm is expected at ``place``."""
    return family.has_torch_norm(place.part)


@functools.lru_cache(maxsize=256)
def _layer_norm(cls: type) -> LentClass:
    return make(cls, (HookedLayerNorm, cls), HookedLayerNorm.forward, {})


@functools.lru_cache(maxsize=256)
def _patched_class(cls: type, original: type, patched: PatchedModule, blocks: str | bool) -> LentClass:
    replacement: Any = patched.built.classes[original]
    between = cls.__mro__[: cls.__mro__.index(original)]
    methods: dict[str, object] = dict(_restored(between, original, replacement, patched.built.originals))
    if is_among("gradient_checkpointing", cls.__mro__):
        methods["gradient_checkpointing"] = checkpointing_switch()
    if isinstance(blocks, str):
        methods["_gradient_checkpointing_func"] = checkpointing_function(_is_lent)
        methods[blocks] = module_list(blocks, kept_blocks)
    return make(cls, (cls, replacement) if between else (replacement,), replacement.forward, methods)


def _restored(
    between: tuple[type, ...], original: Any, replacement: Any, originals: Mapping[str, tuple[type | None, object]]
) -> Iterator[tuple[str, object]]:
    """Patched methods that a class between hides behind what a base class made of the original, as FSDP2's may.

    Raises:
        ReplacedCodeError: a class between has a method of its own there.
    """
    names = {name.rpartition(".")[2] for name, (owner, _) in originals.items() if owner in original.__mro__}
    for cls in between:
        for name in sorted(names & vars(cls).keys()):
            if unwrapped(vars(cls)[name]) is not unwrapped(getattr(original, name)):
                raise ReplacedCodeError(
                    f"{cls.__module__}.{cls.__name__} has a {name} of its own in the place of {original.__name__}'s, "
                    "which hook points are in: it need not run it, so a hook might never fire. Give the model a part "
                    f"of the class {original.__name__} there."
                )
            yield name, getattr(replacement, name)


def _is_lent(module: object) -> bool:
    place = vars(module).get(PLACE) if isinstance(module, nn.Module) else None
    return place is not None and place.is_lent
