"""Lending live modules a patched class, and taking it back.

While nobody listens, a module is of its own class and carries nothing of this library. With the first hook or observer
on one of its hook points it is lent the patched class made for the class that it has then; with the last it gets back
what it has by then, less what was lent.
"""

import contextlib
import copy
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mishformer_lens.engine.live_code import describe
from mishformer_lens.errors import (
    NotInstrumentedError,
    ReplacedCodeError,
    TracedCacheError,
    UnsupportedModelError,
)
from mishformer_lens.hooks import LOCK, HookPoint
from mishformer_lens.lent_classes import PLACE, LentClass, is_among, without

if TYPE_CHECKING:
    from mishformer_lens.instrumentation import Instrumentation

Links = tuple[tuple[Mapping[str, nn.Module | None], str, nn.Module], ...]


class Place:
    """A part of a live model by its path, and what it carries while it is lent.

    Args:
        instrumentation: whose it is.
        layer: the index of the block that it is in; None outside of the blocks.
        part: TransformerLens's name of the part, as ``attn``; empty for a block and for the base model.
        path: where it is, seen from the base model, as ``h.3.attn``.
        parents: the places that are lent too while this one is, the base model's last.
    """

    def __init__(
        self,
        instrumentation: "Instrumentation",
        layer: int | None,
        part: str,
        path: str,
        parents: tuple["Place", ...] = (),
    ) -> None:
        # None in a copy of a part without its model.
        self.instrumentation: Instrumentation | None = instrumentation
        self.layer = layer
        self.part = part
        self.path = path
        self.parents = parents
        self.holders = 0
        self.module: nn.Module | None = None
        self.attributes: Mapping[str, object] = {}
        # One entry for each pass that is in the module: to append and to pop is atomic.
        self._passes: list[None] = []
        self._lent: LentClass | None = None
        self._links: Links | None = None

    def require(self) -> None:
        """Refuse hooks that would never fire.

        Raises:
            NotInstrumentedError: the hook points were removed.
        """
        if self.instrumentation is not None:
            self.instrumentation.require()

    def borrow(self) -> None:
        """Lend the module its patched class, if this is the first who asks.

        Raises:
            NotInstrumentedError: the hook points were removed, or the part is gone.
            UnsupportedModelError: something else stands in its place.
            ReplacedCodeError: the code that the hook points would be in was replaced.
        """
        if not self.holders:
            self.require()
            with contextlib.ExitStack() as on_error:
                for parent in self.parents:
                    parent.borrow()
                    on_error.callback(parent.give_back)
                self._lend()
                on_error.pop_all()
        self.holders += 1

    def give_back(self) -> None:
        """Take the patched class back, if this was the last who needs it; where a pass is running, after it."""
        if self.holders:  # remove() may have taken everything back
            self.holders -= 1
            if not self.holders:
                self.settle()
                for parent in self.parents:
                    parent.give_back()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Have the module lent its patched class inside the context. For what it raises see :meth:`borrow`."""
        with LOCK:
            self.borrow()
        try:
            yield
        finally:
            with LOCK:
                self.give_back()

    def take_back(self) -> None:
        """Take the patched class back, whoever needs it; where a pass is running, after it."""
        self.holders = 0
        self.settle()

    def settle(self) -> None:
        """Take the patched class back, if nobody needs it any more and no pass is running."""
        if self.module is None or self.holders or any(place._passes for place in (self, *self.parents)):
            return
        module, self.module = self.module, None
        assert self._lent is not None  # so is the module
        _take_back(module, self._lent, self.attributes)

    def enter(self) -> None:
        """Take note that a pass enters the module.

        Raises:
            NotInstrumentedError: a part of the model was replaced while its hook points have hooks.
        """
        if self.instrumentation is not None and self.instrumentation.base is self:
            self.instrumentation.check()
        self._passes.append(None)

    def leave(self) -> None:
        """Take note that a pass leaves the module."""
        self._passes.pop()
        if self.instrumentation is not None and self.instrumentation.base is self:
            self.instrumentation.settle()
        elif not self.holders:
            with LOCK:
                self.settle()

    def check(self) -> None:
        """Refuse a pass in which hooks would be missed.

        Raises:
            NotInstrumentedError: another module stands here than the one that was lent.
        """
        if self._links is None:
            self._links = self._find()[1]
        for modules, name, module in self._links:
            if modules.get(name) is not module:
                raise NotInstrumentedError(
                    f"{self.path} is another module than when its hook points got hooks, so they would not fire. Take "
                    "the hooks off before a part is replaced, and add them again afterwards."
                )

    def refuse_export(self) -> None:
        """Refuse to be traced into a program while a cache is on.

        Raises:
            TracedCacheError: activations are observed.
        """
        if self.instrumentation is not None and self.instrumentation.observers and torch.compiler.is_exporting():
            raise TracedCacheError(
                "activations are cached or observed while the model is exported: the exported program would not keep "
                "them. Leave the context of the cache before the model is exported."
            )

    def _lend(self) -> None:
        assert self.instrumentation is not None  # a copy without its model is never lent anew
        module, links = self._find()
        if module is self.module:
            return  # a pass is running since it was to be taken back
        other = vars(module).get(PLACE)
        if other is not None:
            raise UnsupportedModelError(
                f"one module stands at {other.path} and at {self.path}, so a hook on one would fire for both. Put a copy "
                "in one of the two places: copy.deepcopy(module)."
            )
        lent = self.instrumentation.lent_class(self, type(module))
        rebound = dict(_rebound(module, type(module), lent.cls))
        _refuse_forward_of_its_own(module, self.path, rebound)
        self.attributes = self.instrumentation.attributes(self)
        self._tell_of_checkpointing()
        # Not by way of torch's own, which looks for parameters and modules first.
        object.__setattr__(module, "__class__", lent.cls)
        vars(module).update(self.attributes)
        vars(module).update(rebound)
        vars(module)[PLACE] = self
        self.module, self._lent, self._links = module, lent, links

    def _tell_of_checkpointing(self) -> None:
        """Let the hook points know whether a pass without them may be computed again while they have hooks."""
        assert self.instrumentation is not None  # a copy without its model is never lent anew
        around = [self.instrumentation.model, *(place.find() for place in self.parents), self.find()]
        checkpointed = any(bool(vars(module).get("gradient_checkpointing")) for module in around)
        for attribute in self.attributes.values():
            if isinstance(attribute, HookPoint):
                attribute.checkpointed = checkpointed

    def find(self) -> nn.Module:
        """The module that stands here now.

        Raises:
            NotInstrumentedError: there is none.
        """
        return self._find()[0]

    def _find(self) -> tuple[nn.Module, Links]:
        """The module that stands here now, and what has to stay for that to be so."""
        assert self.instrumentation is not None  # a copy without its model has no path
        module: nn.Module = self.instrumentation.model
        links = []
        for name in self.path.split(".") if self.path else ():
            inside = module._modules.get(name)
            if inside is None:
                raise NotInstrumentedError(
                    f"this {type(self.instrumentation.model).__name__} has no part {self.path} any more, so a hook there "
                    "would never fire. instrument(model).hook_points has the names that there are."
                )
            links.append((module._modules, name, inside))
            module = inside
        return module, tuple(links)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Place":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        state = vars(self) | {"_passes": [], "_links": None}
        instrumentation = self.instrumentation
        if instrumentation is None or (id(instrumentation) not in memo and id(instrumentation.model) not in memo):
            # A part is copied without its model: its hooks go on acting, and nothing of the model comes along.
            state |= {"instrumentation": None, "parents": ()}
        vars(duplicate).update(copy.deepcopy(state, memo))
        return duplicate


def _refuse_forward_of_its_own(module: nn.Module, path: str, rebound: Mapping[str, object]) -> None:
    forward = vars(module).get("forward")
    # accelerate's forward calls what it keeps under another name.
    if forward is None or not {"forward", "_old_forward"}.isdisjoint(rebound):
        return
    raise ReplacedCodeError(
        f"the forward of {path or type(module).__name__} was replaced, on this one module, by {describe(forward)}: it "
        "need not run the code that hook points are in, so a hook might never fire. Take it off while hooks are on."
    )


def _take_back(module: nn.Module, lent: LentClass, attributes: Mapping[str, object]) -> None:
    for name in (*attributes, PLACE):
        vars(module).pop(name, None)
    old = type(module)
    new = without(old, lent)
    vars(module).update(_rebound(module, old, new))
    object.__setattr__(module, "__class__", new)


def _rebound(module: nn.Module, old: type, new: type) -> Iterator[tuple[str, types.MethodType]]:
    """Bound methods of ``old`` that other code keeps on the instance, bound anew to those of ``new``."""
    for name, method in list(vars(module).items()):
        if isinstance(method, types.MethodType) and method.__self__ is module:
            for attribute in (method.__func__.__name__, "forward"):
                if is_among(attribute, old.__mro__) and _has(old, attribute, method.__func__):
                    yield name, types.MethodType(getattr(new, attribute), module)
                    break


def _has(cls: type, name: str, function: object) -> bool:
    return any(vars(each).get(name) is function for each in cls.__mro__)
