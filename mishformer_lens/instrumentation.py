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
from mishformer_lens.hook_points import Absent, Form, HookPoints, unflagged
from mishformer_lens.hooks import HookPoint
from mishformer_lens.lending import Place
from mishformer_lens.lent_classes import LentClass
from mishformer_lens.listening import LOCK, Observer, Together
from mishformer_lens.loans import Links, shared_module
from mishformer_lens.patched_classes import lent_class, refuse_foreign
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.family import NORMS_BEFORE
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
        self._observed: tuple[tuple[str, ...], Together] = (), Together(())
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
        if family.attention.has_fewer_keys(config):
            missing.add("hook_attn_in")
        if family.components.get("ln2") == family.components.get("ln1"):
            missing.add("ln2")
        return tuple(frozenset(missing | self._absent_from(block)) for block in self.blocks._modules.values())

    def absent_from_model(self) -> frozenset[str]:
        """What of the family the live model lacks beside its blocks."""
        return frozenset(_absent(self.model, self.family.optional_in_model, self.family.components))

    def _absent_from(self, block: nn.Module | None) -> set[str]:
        """What the family has as a part of some blocks, or as their form, and this one lacks."""
        family = self.family
        missing = _absent(block, family.optional_in_blocks, family.components_of(frozenset()))
        if family.block.norms_before is not None and not getattr(block, family.block.norms_before):
            missing.add(NORMS_BEFORE)
        return missing

    def experts(self) -> tuple[int, ...]:
        """Block by block, how many experts the live block has; none where it has an MLP."""
        if self.family.experts is None:
            return (0,) * self.n_layers
        blocks, components = self.blocks._modules.values(), self.family.components
        return tuple(number_of_experts(module_at(block, components["mlp"])) for block in blocks)

    def form(self) -> Form:
        """What of the family the live model has."""
        return Form(self.absent(), self.experts(), self.absent_from_model())

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
        points, each = self._together(tuple(observers)), tuple(observers.values())
        with LOCK:
            self.require()
            points.add_observers(each)
            self.observers += len(each)
        try:
            yield
        finally:
            with LOCK:
                self.observers -= len(each)
                points.remove_observers(each)

    def _together(self, names: tuple[str, ...]) -> Together:
        """The hook points with these names; the next who observes most often asks for the same."""
        known, points = self._observed
        if names != known:
            points = Together([self[name] for name in names])
            self._observed = names, points
        return points

    @property
    def unflagged_names(self) -> list[str]:
        """The hook points that TransformerLens fires with all its flags off, in the order in which they fire."""
        return list(unflagged(self.family, self.form()))

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
        state = {"observers": 0, "_observed": ((), Together(())), "_contexts": 0}
        vars(duplicate).update(copy.deepcopy(vars(self) | state, memo))
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
                missing = frozenset(self._absent_from(self.blocks._modules.get(str(layer))))
                path = f"{parent.path}.{self.family.path_of(part, missing)}"
            place = self._places.setdefault((layer, part), Place(self, layer, part, path, parent))
        return place

    def places(self) -> Iterator[Place]:
        """All places of the model as it is now, those around others first."""
        yield self.base
        form = self.form()
        for layer, (missing, n_experts) in enumerate(form.blocks()):
            for part in ("", *self.family.block_parts(missing, n_experts)):
                yield self.place(layer, part)
        for part in self.family.model_parts:
            if part not in form.absent_from_model:
                yield self.place(None, part)

    def attributes(self, place: Place) -> dict[str, object]:
        """What the module at ``place`` carries while it is lent: its hook points, and helpers of its patched code."""
        family = self.family
        own: dict[str, object] = {}
        if place.layer is None:
            for spec in (*family.embedding_hooks, *family.final_hooks):
                if spec.part == place.part:
                    own[spec.name.rpartition(".")[2]] = self.hook_points[spec.name]
            return own | (helpers_of_norm(self.hook_points, place.part, family) if place.part else {})
        missing, n_experts = self.absent()[place.layer], self.experts()[place.layer]
        for attribute, name in family.carried_by(place.part, missing, n_experts).items():
            own[attribute] = self.hook_points[f"blocks.{place.layer}.{name}"]
        own |= self._helpers_of(place.layer, missing, n_experts).get(place.part, {})
        return own | helpers_of_experts(self.hook_points, family, place, n_experts)

    def _helpers_of(self, layer: int, missing: frozenset[str], n_experts: int) -> Mapping[str, Mapping[str, object]]:
        if layer not in self._helpers:
            specs = self.family.hooks_of(missing, n_experts)
            points = {
                spec.name: self.hook_points[f"blocks.{layer}.{spec.name}"] for spec in specs if not spec.is_of_expert
            }
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
            UnsupportedModelError: something else stands in the place of a part, or one module in the places of two.
        """
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


def _absent(module: nn.Module | None, parts: Iterable[str], components: Mapping[str, str]) -> set[str]:
    """Those of ``parts`` that ``module`` lacks."""
    return {part for part in parts if module_at(module, components[part]) is None}


def module_at(module: nn.Module | None, path: str) -> nn.Module | None:
    """The module that ``path`` leads to from ``module``; None where there is none."""
    for name in path.split("."):
        module = None if module is None else module._modules.get(name)
    return module


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
        UnsupportedModelError: the model contains no, or more than one, base model of a known family, its configuration
            says what hook points are not for, or parts of it were replaced by something that they cannot be put on.
        ResolutionError: there is no proven variant for the installed release.
    """
    family, base = find_base_model(model)
    family.refuse_other_configurations(base.config)
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
            found.append((family.for_model(part.config), part))
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
