"""Put hook points on a live model, and take them off again."""

import contextlib
import copy
import functools
import importlib
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from mishformer_lens.errors import (
    HooksLeftBehindWarning,
    NotInstrumentedError,
    UnknownHookError,
    UnsupportedModelError,
)
from mishformer_lens.experts import number_of_experts
from mishformer_lens.helpers import helpers_of_block, helpers_of_experts, helpers_of_norm
from mishformer_lens.hook_points import Absent, HookPoints, unflagged
from mishformer_lens.hooks import HookPoint
from mishformer_lens.lending import Place
from mishformer_lens.lent_classes import LentClass
from mishformer_lens.listening import LOCK, Observer, add_observers, remove_observers
from mishformer_lens.loans import Links, shared_module
from mishformer_lens.patched_classes import lent_class, refuse_foreign
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.installed import Source
from mishformer_lens.patchers.resolver import resolve_imported
from mishformer_lens.suggestions import did_you_mean


class Instrumentation:
    """The hook points of one live model. Made by :func:`instrument`.

    The model carries nothing of it until a hook point gets a hook or an observer, and then only the parts around it do.
    It is a context manager: leaving the context removes the hook points.

    Attributes:
        model: the base model, a ``GPT2Model`` or ``GPTNeoXModel``.
        family: the model's family.
        variant: the variant that serves the installed release.
        hook_points: TransformerLens name to hook point, in the order in which they fire.
        observers: how many observers are on, of :meth:`observing` and :meth:`caching`.
    """

    def __init__(self, model: nn.Module, family: Family, variant: Variant, source: Source) -> None:
        self.model = model
        self.family = variant.seen(family)
        self.variant = variant
        self._source = source
        self.hook_points = HookPoints(self)
        self.observers = 0
        self.base = Place(self, None, "", "")
        self._places: dict[tuple[int | None, str], Place] = {(None, ""): self.base}
        self._helpers: dict[int, Mapping[str, Mapping[str, object]]] = {}
        self._contexts = 0
        self._removed = False

    @property
    def features(self) -> tuple[str, ...]:
        """The attention implementations that the installed release offers for this family."""
        return self.variant.attention

    @property
    def unsupported(self) -> Mapping[str, str]:
        """What the installed release cannot do, with the reason."""
        return self.variant.unsupported

    @property
    def active(self) -> bool:
        """Whether these hook points are on the model: they are until :meth:`remove`."""
        return not self._removed

    @property
    def blocks(self) -> nn.Module:
        """HuggingFace's list of the model's blocks, as it is now."""
        blocks = self.model._modules[self.family.components["blocks"]]
        assert blocks is not None  # instrument() refuses a model without blocks
        return blocks

    @property
    def n_layers(self) -> int:
        """How many blocks the model has now."""
        return len(self.blocks._modules)

    def absent(self) -> Absent:
        """Block by block, what of the family the live block lacks."""
        family = self.family
        config: Any = self.model.config
        missing: set[str] = set()
        if isinstance(family.block.parallel, str) and getattr(config, family.block.parallel):
            missing.add("hook_resid_mid")
        if family.attention.n_key_value_heads and config.num_key_value_heads != config.num_attention_heads:
            missing.add("hook_attn_in")
        lacking = tuple(
            {part for part in family.optional if self._part(block, part) is None}
            for block in self.blocks._modules.values()
        )
        if family.components.get("ln2") == family.components.get("ln1"):
            missing.add("ln2")
        return tuple(frozenset(missing | parts) for parts in lacking)

    def experts(self) -> tuple[int, ...]:
        """Block by block, how many experts the live block has; none where it has an MLP."""
        if self.family.experts is None:
            return (0,) * self.n_layers
        return tuple(number_of_experts(self._part(block, "mlp")) for block in self.blocks._modules.values())

    def _part(self, block: nn.Module | None, part: str) -> nn.Module | None:
        for name in self.family.components[part].split("."):
            block = None if block is None else block._modules.get(name)
        return block

    def require(self) -> None:
        """Refuse a hook that could never fire.

        Raises:
            NotInstrumentedError: the hook points were removed.
        """
        if self._removed:
            raise NotInstrumentedError(
                f"the hook points of this {type(self.model).__name__} were removed, so a hook on them would never "
                "fire. Call mishformer_lens.instrument(model) to get new ones."
            )

    def __getitem__(self, name: str) -> HookPoint:
        """The hook point with that TransformerLens name.

        Raises:
            UnknownHookError: there is none; the message has the closest names.
        """
        try:
            return self.hook_points[name]
        except KeyError:
            raise UnknownHookError(
                f"this {self.family.name} model has no hook point {name!r}. {did_you_mean(name, self.hook_points)}"
                f"All {len(self.hook_points)} names are in hook_points."
            ) from None

    @contextlib.contextmanager
    def caching(self, names: Iterable[str] | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """Keep activations of the forward passes inside the context, the last pass's where there are several.

        Args:
            names: which hook points; all that need no flag in TransformerLens, if not given.

        Yields:
            TransformerLens name to the detached activation, as the hooks left it.

        Raises:
            UnknownHookError: a name is no hook point's.
            NotInstrumentedError, UnsupportedModelError, ReplacedCodeError: see :meth:`observing`.
        """
        names = self.unflagged_names if names is None else names
        cache: dict[str, torch.Tensor] = {}

        def keep(activation: torch.Tensor, hook_point: HookPoint) -> None:
            # One more tensor for each activation is a third of what keeping it costs.
            cache[hook_point.name] = activation.detach() if activation.requires_grad else activation

        with self.observing(dict.fromkeys(names, keep)):
            yield cache

    @contextlib.contextmanager
    def observing(self, observers: Mapping[str, Observer]) -> Iterator[None]:
        """Let each observer see its hook point's activation, as the hooks left it, inside the context.

        Args:
            observers: TransformerLens name to ``observer(activation, hook_point)``; what it returns is ignored.

        Raises:
            UnknownHookError: a name is no hook point's.
            NotInstrumentedError: the hook points were removed, or a part of the model is gone.
            UnsupportedModelError: something else stands in the place of a part.
            ReplacedCodeError: other code replaced what the hook points would be in.
            TracedCacheError: in the context, the model is exported.
        """
        pairs = [(self[name], observer) for name, observer in observers.items()]
        with LOCK:
            self.require()
            add_observers(pairs)
            self.observers += len(pairs)
        try:
            yield
        finally:
            with LOCK:
                self.observers -= len(pairs)
                remove_observers(pairs)

    @property
    def unflagged_names(self) -> list[str]:
        """The hook points that TransformerLens fires with all its flags off, in the order in which they fire."""
        return list(unflagged(self.family, self.absent(), self.experts()))

    def remove(self) -> None:
        """Give every part of the model that has hooks back as it was. Hooks that are on never fire again.

        Raises:
            NotInstrumentedError: the hook points were removed already.
        """
        with LOCK:
            if self._removed:
                raise NotInstrumentedError(
                    f"this {type(self.model).__name__} does not carry these hook points: they were removed already. "
                    "Call mishformer_lens.instrument(model) to put new ones on."
                )
            self._removed = True
            if _instrumented.get(self.model, _nothing)() is self:
                del _instrumented[self.model]
            for place in reversed(self._places.values()):
                place.take_back()

    def __enter__(self) -> "Instrumentation":
        self._contexts += 1
        return self

    def __exit__(self, *exception: object) -> None:
        self._contexts -= 1
        if self.active and not self._contexts:
            self.remove()

    def __repr__(self) -> str:
        state = f"{len(self.hook_points)} hook points" if self.active else "removed"
        return f"Instrumentation({self.family.name}, {self.variant.name}, {state})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Instrumentation":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        # Observers and contexts are those of the original.
        vars(duplicate).update(copy.deepcopy(vars(self) | {"observers": 0, "_contexts": 0}, memo))
        if duplicate.active:
            with LOCK:
                _instrumented[duplicate.model] = weakref.ref(duplicate)
        return duplicate

    def __reduce__(self) -> Any:
        """Pickled, it is the one of the model that is loaded, without hooks.

        Raises:
            NotInstrumentedError: the hook points were removed.
        """
        self.require()
        left = [name for name, point in self.hook_points.made.items() if point.listening]
        if left:
            warnings.warn(
                f"this {type(self.model).__name__} is pickled while {len(left)} of its hook points have hooks or "
                f"observers, as {left[0]}: they stay here, and what is loaded, maybe in another process, runs without "
                "them. Add the hooks to what was loaded, or in the function that runs there, as run_with_hooks does.",
                HooksLeftBehindWarning,
                stacklevel=2,
            )
        return instrument, (self.model,)

    def __copy__(self) -> "Instrumentation":
        """Itself: a model has one."""
        return self

    def place(self, layer: int | None, part: str) -> Place:
        """Where a part is: of a block, or of the model where ``layer`` is None; with ``part`` empty, that itself."""
        place = self._places.get((layer, part))
        if place is None:
            components = self.family.components
            if layer is None:
                parent, path = self.base, components[part]
            elif not part:
                parent, path = self.base, f"{components['blocks']}.{layer}"
            else:
                parent = self.place(layer, "")
                path = f"{parent.path}.{self.family.path_of(part)}"
            place = self._places.setdefault((layer, part), Place(self, layer, part, path, parent))
        return place

    def places(self) -> Iterator[Place]:
        """All places of the model as it is now, those around others first."""
        yield self.base
        for layer, (missing, n_experts) in enumerate(zip(self.absent(), self.experts(), strict=True)):
            for part in ("", *self.family.parts_of_block(n_experts)):
                if part not in missing:
                    yield self.place(layer, part)
        yield self.place(None, "ln_final")

    def attributes(self, place: Place) -> dict[str, object]:
        """What the module at ``place`` carries while it is lent: its hook points, and helpers of its patched code."""
        family, names = self.family, self.hook_points.names()
        own: dict[str, object] = {}
        if place.layer is None:
            for spec in (*family.embedding_hooks, *family.final_hooks):
                if spec.part == place.part:
                    own[spec.name.rpartition(".")[2]] = self.hook_points[spec.name]
            return own | (helpers_of_norm(self.hook_points, place.part, family) if place.part else {})
        n_experts = self.experts()[place.layer]
        for attribute, name in family.carried_by(place.part, n_experts).items():
            if f"blocks.{place.layer}.{name}" in names:
                own[attribute] = self.hook_points[f"blocks.{place.layer}.{name}"]
        own |= self._helpers_of(place.layer).get(place.part, {})
        return own | helpers_of_experts(self.hook_points, family, place, n_experts)

    def _helpers_of(self, layer: int) -> Mapping[str, Mapping[str, object]]:
        if layer not in self._helpers:
            specs = self.family.hooks_of_block(self.experts()[layer])
            hooks = {spec.name: f"blocks.{layer}.{spec.name}" for spec in specs if not spec.is_of_expert}
            names = self.hook_points.names()
            points = {name: self.hook_points[full] for name, full in hooks.items() if full in names}
            self._helpers[layer] = helpers_of_block(points, self.family, functools.partial(self.place, layer))
        return self._helpers[layer]

    def lent_class(self, place: Place, cls: type) -> tuple[LentClass, Links]:
        """The class to lend to a module of the class ``cls`` at ``place``, and the living code for which that is right.

        Raises:
            UnsupportedModelError: it is of no class that this part of the family has.
            ReplacedCodeError: other code replaced what the hook points would be in.
        """
        return lent_class(self.family, self.variant, self._source, place, cls)

    def refuse_foreign_parts(self) -> None:
        """Refuse a model with parts that hook points cannot be put on.

        Raises:
            UnsupportedModelError: something else stands in the place of a part, or one module in the places of two; or
                the configuration says that other code is to run.
        """
        config = vars(self.model.config)
        for name, value in self.family.needs.items():
            if config.get(name, value) != value:
                raise UnsupportedModelError(
                    f"the configuration of this {type(self.model).__name__} says {name}={config[name]}: it runs code "
                    f"that hook points are not in. Needed is {name}={value}: set model.config.{name} to that."
                )
        seen: dict[nn.Module, str] = {}
        for place in self.places():
            module = place.find()
            refuse_foreign(self.family, self.variant, self._source, place, type(module))
            if module in seen:
                raise shared_module(seen[module], place.path)
            seen[module] = place.path


# By the base model. An Instrumentation lives as long as somebody holds it, or hooks are on.
_instrumented: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Instrumentation]] = weakref.WeakKeyDictionary()


def _nothing() -> None:
    return None


def instrument(model: nn.Module, *, allow_unverified: bool | None = None) -> Instrumentation:
    """Put TransformerLens's hook points on a live HuggingFace model, in place.

    No weight is copied, and every output stays what it was, bit by bit, until a hook acts: a part of the model without
    hooks is as HuggingFace made it. Where the model has hook points already, the same :class:`Instrumentation` is
    returned.

    Args:
        model: a model of transformers of a supported family, with any head or wrapper around it.
        allow_unverified: go on, with a warning, where the installed source fits but was never verified. None: what the
            environment variable ``MISHFORMER_LENS_ALLOW_UNVERIFIED`` says.

    Raises:
        UnsupportedModelError: the model contains no, or more than one, base model of a known family, or parts of it
            were replaced by something that the hook points cannot be put on.
        ResolutionError: there is no proven variant for the installed release.
    """
    family, base = find_base_model(model)
    for (field, value), reason in family.refused.items():
        if getattr(base.config, field) == value:
            raise UnsupportedModelError(f"this {family.name} model has {field}={value}: {reason}.")
    with LOCK:
        existing = _instrumented.get(base, _nothing)()
        if existing is not None:
            return existing
        module = importlib.import_module(family.module_name)
        verdict, source = resolve_imported(family, module, allow_unverified)
        instrumentation = Instrumentation(base, family, verdict.variant, source)
        instrumentation.refuse_foreign_parts()
        _instrumented[base] = weakref.ref(instrumentation)
    return instrumentation


def find_base_model(model: nn.Module) -> tuple[Family, nn.Module]:
    """The one part of ``model`` that is a base model of a known family.

    Raises:
        UnsupportedModelError: there is none, or more than one.
    """
    found = []
    for part in model.modules():
        cls: Any = type(part)
        family = _family_of(cls)
        if family is not None:
            found.append((family, part))
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{family.name} ({family.base_model})" for family in FAMILIES.values())
    if found:
        raise UnsupportedModelError(
            f"this {type(model).__name__} contains {len(found)} base models. Instrument each of them by itself."
        )
    raise UnsupportedModelError(
        f"{type(model).__module__}.{type(model).__name__} is of no family that has hook points. "
        f"Needed is a model, with any head, of: {known}. For patches of your own, add a folder for the family to "
        "mishformer_lens/patchers, as CONTRIBUTING.md says under 'Adding a family'."
    )


_BASE_MODELS = {(family.module_name, family.base_model): family for family in FAMILIES.values()}


@functools.lru_cache(maxsize=1024)
def _family_of(cls: type) -> Family | None:
    """The family of which ``cls`` is the base model."""
    found = (_BASE_MODELS.get((each.__module__, each.__name__)) for each in cls.__mro__)
    return next((family for family in found if family is not None), None)
