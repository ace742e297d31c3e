"""Put hook points on a live model, and take them off again."""

import contextlib
import functools
import importlib
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mishformer_lens.attention_scores import AttentionScores
from mishformer_lens.engine import BuiltMembers, build_members, patch_source
from mishformer_lens.errors import NotInstrumentedError, UnknownHookError, UnsupportedModelError
from mishformer_lens.hooks import HookGroup, HookPoint, Observer
from mishformer_lens.live_changes import LiveChanges, make_copyable
from mishformer_lens.on_demand import AttentionInputs, HeadResults, HookedLayerNorm
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.contract import HookSpec
from mishformer_lens.patchers.resolver import resolve
from mishformer_lens.suggestions import did_you_mean

_RECORD = "_mishformer_lens"

# The hook points of one module, on the module.
_GROUP = "_mishformer_lens_hooks"

_HELPERS = ("attention_inputs", "attention_scores", "head_results")

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


class Instrumentation:
    """The hook points of one live model. Made by :func:`instrument`.

    It is a context manager: leaving the context removes the hook points.

    Attributes:
        model: the base model that carries them, a ``GPT2Model`` or ``GPTNeoXModel``.
        family: the model's family.
        variant: the variant that was put on.
        hook_points: TransformerLens name to hook point, in the order in which they fire.
    """

    def __init__(self, model: nn.Module, family: Family, variant: Variant) -> None:
        self.model = model
        self.family = family
        self.variant = variant
        self.hook_points: dict[str, HookPoint] = {}
        self._contexts = 0
        self._changes = LiveChanges()

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
        """Whether these hook points are on the model."""
        return vars(self.model).get(_RECORD) is self

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
        """
        names = self.unflagged_names if names is None else names
        cache: dict[str, torch.Tensor] = {}

        def keep(activation: torch.Tensor, hook_point: HookPoint) -> None:
            # One more tensor for each activation is a third of what keeping it costs.
            cache[str(hook_point.name)] = activation.detach() if activation.requires_grad else activation

        with self.observing(dict.fromkeys(names, keep)):
            yield cache

    @contextlib.contextmanager
    def observing(self, observers: Mapping[str, Observer]) -> Iterator[None]:
        """Let each observer see its hook point's activation, as the hooks left it, inside the context.

        Args:
            observers: TransformerLens name to ``observer(activation, hook_point)``; what it returns is ignored.

        Raises:
            UnknownHookError: a name is no hook point's.
        """
        points = [(self[name], observer) for name, observer in observers.items()]
        for point, observer in points:
            point.add_observer(observer)
        try:
            yield
        finally:
            for point, observer in points:
                point.remove_observer(observer)

    @property
    def unflagged_names(self) -> list[str]:
        """The hook points that TransformerLens fires with all its flags off, in the order in which they fire."""
        flagged = {spec.name for spec in self.family.block_hooks if spec.flag}
        return [name for name in self.hook_points if name.split(".", 2)[-1] not in flagged]

    def remove(self) -> None:
        """Give the model back as it was: classes, attributes, ``repr``.

        Raises:
            NotInstrumentedError: the hook points were removed already.
        """
        if not self.active:
            raise NotInstrumentedError(
                f"this {type(self.model).__name__} does not carry these hook points: they were removed already. "
                "Call mishformer_lens.instrument(model) to put new ones on."
            )
        self._changes.undo()

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


def instrument(model: nn.Module, *, allow_unverified: bool | None = None) -> Instrumentation:
    """Put TransformerLens's hook points on a live HuggingFace model, in place.

    No weight is copied, and every output stays what it was, bit by bit, until a hook acts. A model that carries hook
    points already is left as it is, and its :class:`Instrumentation` is returned.

    Args:
        model: a GPT-2 or GPT-NeoX model of transformers, with any head or wrapper around it.
        allow_unverified: go on, with a warning, where the installed source fits but was never verified. None: what the
            environment variable ``MISHFORMER_LENS_ALLOW_UNVERIFIED`` says.

    Raises:
        UnsupportedModelError: the model contains no, or more than one, base model of a known family, or parts of it
            were replaced by something that the hook points cannot be put on.
        ResolutionError: there is no proven variant for the installed release.
    """
    family, base = find_base_model(model)
    existing = vars(base).get(_RECORD)
    if isinstance(existing, Instrumentation):
        return existing
    module = importlib.import_module(family.module_name)
    path = Path(str(module.__file__))
    variant = resolve(family, path, allow_unverified).variant
    built = _built(family.name, variant.name, path)
    instrumentation = Instrumentation(base, family, variant)
    with contextlib.ExitStack() as on_error:
        on_error.callback(instrumentation._changes.undo)
        _attach(instrumentation, built)
        on_error.pop_all()
    return instrumentation


def find_base_model(model: nn.Module) -> tuple[Family, nn.Module]:
    """The one part of ``model`` that is a base model of a known family.

    Raises:
        UnsupportedModelError: there is none, or more than one.
    """
    found = [(family, part) for part in model.modules() for family in FAMILIES.values() if _is_base(part, family)]
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


def _is_base(part: nn.Module, family: Family) -> bool:
    return any(cls.__module__ == family.module_name and cls.__name__ == family.base_model for cls in type(part).__mro__)


_lock = threading.Lock()


def _built(family: str, variant: str, path: Path) -> BuiltMembers:
    with _lock:
        return _build(family, variant, path)


@functools.cache
def _build(family_name: str, variant_name: str, path: Path) -> BuiltMembers:
    """The patched members for the imported module of a family, compiled once per process."""
    family = FAMILIES[family_name]
    variant = family.variant(variant_name)
    module = importlib.import_module(family.module_name)
    built = build_members(
        module,
        patch_source(path.read_text(encoding="utf-8"), variant.edits),
        label=f"mishformer_lens {family_name} {variant_name}",
        drop_decorators=DOCUMENTATION_DECORATORS,
    )
    for original, patched in built.classes.items():
        _patch_only_while_listening(patched, original)
        make_copyable(patched, original, _attributes(family))
    return built


def _patch_only_while_listening(patched: Any, original: type) -> None:
    """Let the patched methods of a class run where a hook point of the module is listening, the originals elsewhere.

    So an idle module runs HuggingFace's own code, for the price of one call more.
    """
    for name, method in list(vars(patched).items()):
        if isinstance(method, types.FunctionType):
            setattr(patched, name, _chosen(method, getattr(original, name)))


def _chosen(patched: types.FunctionType, original: types.FunctionType) -> Any:
    @functools.wraps(patched)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._mishformer_lens_hooks.listening:
            return patched(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    return method


def _attributes(family: Family) -> frozenset[str]:
    specs = (*family.embedding_hooks, *family.block_hooks, *family.final_hooks)
    return frozenset({spec.name.rpartition(".")[2] for spec in specs} | {_RECORD, _GROUP, *_HELPERS})


def _attach(instrumentation: Instrumentation, built: BuiltMembers) -> None:
    family, base, changes = instrumentation.family, instrumentation.model, instrumentation._changes
    changes.set_attribute(base, _RECORD, instrumentation)
    changes.set_class(base, _patched_class(base, built))
    components = family.components
    final = {"": base, "ln_final": base.get_submodule(components["ln_final"])}
    blocks = list(base.get_submodule(components["blocks"]).children())
    _swap_layer_norm(changes, final["ln_final"], family)
    embedding = _add_hooks(instrumentation, "", family.embedding_hooks, final)
    changes.set_attribute(base, _GROUP, HookGroup(*embedding.values()))
    for index, block in enumerate(blocks):
        _attach_block(instrumentation, built, index, block)
    _add_hooks(instrumentation, "", family.final_hooks, final)


def _attach_block(instrumentation: Instrumentation, built: BuiltMembers, index: int, block: nn.Module) -> None:
    family, changes = instrumentation.family, instrumentation._changes
    # The block first: one that something else took the place of has no parts by these names.
    changes.set_class(block, _patched_class(block, built))
    parts = {name: block.get_submodule(family.components[name]) for name in ("attn", "mlp", "ln1", "ln2")}
    for module in (parts["attn"], parts["mlp"]):
        changes.set_class(module, _patched_class(module, built))
    for name in ("ln1", "ln2"):
        _swap_layer_norm(changes, parts[name], family)
    hooks = _add_hooks(
        instrumentation, f"blocks.{index}.", _specs_of(family, instrumentation.model), {"": block, **parts}
    )
    inputs = AttentionInputs(hooks, parts["attn"], family)
    called = {name: _called_from(name, hooks) for name in ("", "attn", "mlp")}
    # The block takes these hook points' activation, the attention projects it.
    called["attn"] += inputs.hooks
    for name, module in (("", block), ("attn", parts["attn"]), ("mlp", parts["mlp"])):
        changes.set_attribute(module, _GROUP, HookGroup(*called[name]))
    changes.set_attribute(block, "attention_inputs", inputs)
    changes.set_attribute(parts["attn"], "attention_inputs", inputs)
    scores = AttentionScores(hooks["attn.hook_attn_scores"], hooks["attn.hook_pattern"])
    changes.set_attribute(parts["attn"], "attention_scores", scores)
    changes.set_attribute(parts["attn"], "head_results", HeadResults(hooks["attn.hook_result"], parts["attn"], family))


def _called_from(owner: str, hooks: Mapping[str, HookPoint]) -> tuple[HookPoint, ...]:
    return tuple(hook for name, hook in hooks.items() if name.rpartition(".")[0] == owner)


def _specs_of(family: Family, base: nn.Module) -> Iterator[HookSpec]:
    parallel = family.parallel_switch is not None and bool(getattr(base.config, family.parallel_switch))
    for spec in family.block_hooks:
        if not (parallel and spec.name == "hook_resid_mid"):
            yield spec


def _add_hooks(
    instrumentation: Instrumentation,
    prefix: str,
    specs: Iterator[HookSpec] | tuple[HookSpec, ...],
    owners: Mapping[str, nn.Module],
) -> dict[str, HookPoint]:
    """Create hook points, put each on the module that calls it, and return them by the names in their specs."""
    hooks = {}
    for spec in specs:
        owner, _, attribute = spec.name.rpartition(".")
        hook = HookPoint()
        hook.name = prefix + spec.name
        instrumentation._changes.set_attribute(owners[owner], attribute, hook)
        instrumentation.hook_points[hook.name] = hooks[spec.name] = hook
    return hooks


def _patched_class(module: nn.Module, built: BuiltMembers) -> type:
    """The class to give to ``module``: its own class may stand between it and the class that was patched."""
    cls: Any = type(module)
    for original in cls.__mro__:
        if original in built.classes:
            patched = built.classes[original]
            return patched if original is cls else _between(cls, patched)
    expected = ", ".join(each.__name__ for each in built.classes)
    raise UnsupportedModelError(
        f"{cls.__module__}.{cls.__name__} stands where one of {expected} is expected. "
        "Instrument the model before parts of it are wrapped or replaced."
    )


@functools.cache
def _between(cls: type, patched: type) -> type:
    derived = types.new_class(cls.__name__, (cls, patched))
    derived.__module__, derived.__qualname__ = cls.__module__, cls.__qualname__
    return derived


def _swap_layer_norm(changes: LiveChanges, module: nn.Module, family: Family) -> None:
    if not isinstance(module, nn.LayerNorm):
        raise UnsupportedModelError(
            f"{type(module).__name__} stands where {family.name} has a torch.nn.LayerNorm. "
            "Instrument the model before its layer norms are replaced."
        )
    cls: Any = type(module)
    changes.set_class(module, _hooked_layer_norm(cls))


@functools.cache
def _hooked_layer_norm(cls: type[nn.LayerNorm]) -> type:
    hooked = types.new_class(cls.__name__, (HookedLayerNorm, cls))
    hooked.__module__, hooked.__qualname__ = cls.__module__, cls.__qualname__
    make_copyable(hooked, cls, frozenset({"hook_scale", "hook_normalized"}))
    return hooked
