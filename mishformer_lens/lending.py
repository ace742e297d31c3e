"""Lending live modules a patched class, and taking it back.

While nobody listens, a module is of its own class and carries nothing of this library. With the first hook or observer
on one of its hook points it is lent the patched class made for the class that it has then; with the last it gets back
what it has by then, less what was lent.
"""

import contextlib
import copy
import dataclasses
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
from mishformer_lens.lent_classes import PLACE, LentClass, rebound, without

if TYPE_CHECKING:
    from mishformer_lens.instrumentation import Instrumentation

Links = tuple[tuple[Mapping[str, object], str, object], ...]


class Place:
    """A part of a live model by its path, and what it carries while it is lent.

    Args:
        instrumentation: whose it is.
        layer: the index of the block that it is in; None outside of the blocks.
        part: TransformerLens's name of the part, as ``attn``; empty for a block and for the base model.
        path: where it is, seen from the base model, as ``h.3.attn``.
        parent: the place that it is in: of a part its block's, of a block the base model's. It is lent too while this
            one is.
    """

    def __init__(
        self,
        instrumentation: "Instrumentation",
        layer: int | None,
        part: str,
        path: str,
        parent: "Place | None" = None,
    ) -> None:
        # None in a copy of a part without its model.
        self.instrumentation: Instrumentation | None = instrumentation
        self.layer = layer
        self.part = part
        self.path = path
        self.parent = parent
        self.is_base = parent is None
        # The hook points whose patched code is here.
        self.points: list[HookPoint] = []
        # How many others need the module to be lent: parts in it that are, and passes of a special kind.
        self.holders = 0
        self.is_lent = False
        self.module: nn.Module | None = None
        self.attributes: Mapping[str, object] = {}
        self._checkpointed = False
        # One entry for each pass that is in the module: to append and to pop is atomic.
        self._passes: list[None] = []
        self._loan: Loan | None = None

    @property
    def is_edited(self) -> bool:
        """Whether a hook that may edit is on a hook point here or of a part inside."""
        return any(point.may_edit() for point in self.points) or any(place.is_edited for place in self._inside())

    def _inside(self) -> list["Place"]:
        return [] if self.instrumentation is None else self.instrumentation.inside(self)

    @property
    def is_running(self) -> bool:
        """Whether a pass is in the module."""
        return bool(self._passes)

    def require(self) -> None:
        """Refuse hooks that would never fire.

        Raises:
            NotInstrumentedError: the hook points were removed.
        """
        if self.instrumentation is not None:
            self.instrumentation.require()

    def update(self) -> None:
        """Lend the module its patched class where somebody needs that, and take it back where nobody does any more.

        Raises:
            NotInstrumentedError: the part is gone.
            UnsupportedModelError: something else stands in its place.
            ReplacedCodeError: the code that the hook points would be in was replaced.
        """
        needed = self._is_needed()
        if needed and not self.is_lent:
            self._hold_parent(1)
            try:
                self._lend()
            except BaseException:  # an interrupt, too, leaves everything as it was
                self._hold_parent(-1)
                raise
            self.is_lent = True
        elif self.is_lent and not needed:
            self.is_lent = False
            self.settle()
            self._hold_parent(-1)

    def _is_needed(self) -> bool:
        if self.instrumentation is not None and not self.instrumentation.active:
            return False
        if self.holders:
            return True
        return any(point.listening for point in self.points)

    def _hold_parent(self, number: int) -> None:
        if self.parent is not None:
            self.parent.holders += number
            try:
                self.parent.update()
            except BaseException:
                self.parent.holders -= number
                raise

    @contextlib.contextmanager
    def lent(self) -> Iterator[nn.Module]:
        """Have the module lent its patched class inside the context. For what it raises see :meth:`update`."""
        self.require()
        with LOCK:
            self.holders += 1
            try:
                self.update()
            except BaseException:
                self.holders -= 1
                raise
        assert self.module is not None  # it is lent
        try:
            yield self.module
        finally:
            with LOCK:
                self.holders -= 1
                self.update()

    def take_back(self) -> None:
        """Take the patched class back, whoever needs it; where a pass is running, after it."""
        self.is_lent = False
        self.settle()

    def settle(self) -> None:
        """Take the patched class back, if nobody needs it any more and no pass is running."""
        if self.module is None or self.is_lent or self._is_in_use():
            return
        # Passes that begin from now on see a module that is not lent. One that began in between is waited for.
        vars(self.module).pop(PLACE, None)
        if self._is_in_use():
            vars(self.module)[PLACE] = self
            return
        module, self.module = self.module, None
        assert self._loan is not None  # the module was lent
        _take_back(module, self._loan, self.attributes)

    def _is_in_use(self) -> bool:
        """Whether a pass is in the module, or in one around it."""
        place: Place | None = self
        while place is not None:
            if place._passes:
                return True
            place = place.parent
        return False

    def enter(self) -> list[None]:
        """Take note that a pass enters the module.

        Returns:
            a list from which the last is to be taken when the pass leaves, before :meth:`leave`.

        Raises:
            NotInstrumentedError: a part of the model was replaced while its hook points have hooks.
        """
        if self.is_base:
            assert self.instrumentation is not None  # so has every base model's place
            self.refuse_export()
            self.instrumentation.check()
        self._passes.append(None)
        return self._passes

    def leave(self) -> None:
        """Take back what nobody needs any more, after a pass."""
        if self.is_base:
            assert self.instrumentation is not None  # so has every base model's place
            self.instrumentation.settle()
        else:
            with LOCK:
                self.settle()

    @property
    def loan(self) -> "Loan":
        """What the module was lent."""
        assert self._loan is not None  # it is lent
        return self._loan

    def refuse_replacement(self) -> None:
        """Refuse a pass in which hooks would be missed.

        Raises:
            NotInstrumentedError: always.
        """
        raise NotInstrumentedError(
            f"{self.path} is another module than when its hook points got hooks, so they would not fire. Take the "
            "hooks off before a part is replaced, and add them again afterwards."
        )

    def refuse_foreign_forward(self) -> None:
        """Refuse a pass in which a forward that was bound to the module since, as kernels are, would miss hooks.

        Raises:
            ReplacedCodeError: there is one.
        """
        assert self.module is not None  # it is lent
        if type(vars(self.module).get("forward")) is types.MethodType:
            cls = type(self.module)
            _refuse_forward_of_its_own(self.module, self.path, dict(rebound(self.module, cls, cls)))

    def refuse_export(self) -> None:
        """Refuse to be traced into a program while a cache is on.

        Raises:
            TracedCacheError: activations are observed.
        """
        if self.instrumentation is None or not self.instrumentation.observers:
            return
        if torch.compiler.is_exporting() or torch._C._is_tracing():
            raise TracedCacheError(
                "activations are cached or observed while the model is exported: the exported program would not keep "
                "them. Leave the context of the cache before the model is exported."
            )

    def _lend(self) -> None:
        loan = self._loan
        if self.module is not None and loan is not None and loan.module is self.module and loan.is_in_place():
            return  # a pass is running since it was to be taken back
        if loan is None or not loan.holds():
            loan = self._loan = self._new_loan()
        module, values = loan.module, vars(loan.module)
        self._tell_of_checkpointing(values)
        if len(values) != loan.size or loan.has_methods:
            values.update(rebound(module, loan.cls, loan.lent.cls))
        # What patched code needs first: another thread may enter the module at once.
        values.update(self.attributes)
        values[PLACE] = self
        # Not by way of torch's own, which looks for parameters and modules first.
        object.__setattr__(module, "__class__", loan.lent.cls)
        self.module = module

    def _new_loan(self) -> "Loan":
        if self.instrumentation is None:
            raise NotInstrumentedError(
                "this hook point belongs to a part that was copied without its model, so a hook on it would never "
                "fire. Copy the model, or put the part into one, and call mishformer_lens.instrument(model)."
            )
        module, links = self._find()
        other: Place | None = vars(module).get(PLACE)
        if other is not None and other is not self:
            if not (other.path == self.path and other.instrumentation and not other.instrumentation.active):
                raise shared_module(other.path, self.path)
            return self._adopt(other, links)
        cls = type(module)
        lent, proofs = self.instrumentation.lent_class(self, cls)
        if "forward" in vars(module):
            _refuse_forward_of_its_own(module, self.path, dict(rebound(module, cls, lent.cls)))
        self.attributes = self.instrumentation.attributes(self)
        has_methods = types.MethodType in map(type, vars(module).values())
        return Loan(module, cls, lent, links, proofs, len(vars(module)), has_methods)

    def _adopt(self, other: "Place", links: Links) -> "Loan":
        """Take over a module whose hook points were removed in a pass that is still running."""
        assert self.instrumentation is not None
        self.attributes = self.instrumentation.attributes(self)
        self._passes, other.module = other._passes, None
        return dataclasses.replace(other.loan, links=links)

    def find(self) -> nn.Module:
        """The module that stands here now.

        Raises:
            NotInstrumentedError: there is none.
        """
        return self._find()[0]

    def _find(self) -> tuple[nn.Module, Links]:
        """The module that stands here now, and the links that lead to it from its parent."""
        assert self.instrumentation is not None  # a copy without its model has no path
        module: nn.Module = self.instrumentation.model
        links: list[tuple[Mapping[str, object], str, object]] = []
        for name in self.path.split(".") if self.path else ():
            inside = module._modules.get(name)
            if inside is None:
                raise NotInstrumentedError(
                    f"this {type(self.instrumentation.model).__name__} has no part {self.path} any more, so a hook "
                    "there would never fire. instrument(model).hook_points has the names that there are."
                )
            links.append((module._modules, name, inside))
            module = inside
        # The parent, which is lent too, sees to the links that lead to it.
        above = len(self.parent.path.split(".")) if self.parent is not None and self.parent.path else 0
        return module, tuple(links[above:])

    def _tell_of_checkpointing(self, values: Mapping[str, object]) -> None:
        """Let the hook points know whether a pass without them may be computed again while they have hooks."""
        place: Place | None = self.parent
        checkpointed = bool(values.get("gradient_checkpointing"))
        while place is not None and place.module is not None:
            checkpointed = checkpointed or bool(vars(place.module).get("gradient_checkpointing"))
            place = place.parent
        if checkpointed != self._checkpointed:
            self._checkpointed = checkpointed
            for point in self.points:
                point.checkpointed = checkpointed

    def __deepcopy__(self, memo: dict[int, Any]) -> "Place":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        # Observers stay with the original.
        held_by = [place for place in self._inside() if place.is_lent and place.is_edited]
        state = vars(self) | {"_passes": [], "holders": len(held_by)}
        if not (self.is_lent and self.is_edited):
            state |= {"is_lent": False, "module": None, "_loan": None}
        instrumentation = self.instrumentation
        if instrumentation is None or (id(instrumentation) not in memo and id(instrumentation.model) not in memo):
            # A part is copied without its model: its hooks go on acting, and nothing of the model comes along.
            state |= {"instrumentation": None, "is_base": False}
            if self.parent is not None and (self.parent.module is None or id(self.parent.module) not in memo):
                state["parent"] = None
        vars(duplicate).update(copy.deepcopy(state, memo))
        return duplicate


@dataclasses.dataclass(frozen=True)
class Loan:
    """A class that was found for a module, and what has to stay as it is for that to be right.

    Attributes:
        module: the module.
        cls: its class without the lent one.
        lent: the class to lend it.
        links: where it stands: the tables that lead there from its parent, with name and module.
        proofs: the living code that the lent class stands in for: where it is, under which name, and what it is.
        size: how many attributes the module has: if others put a method of it on the module, it has more.
        has_methods: whether some have done so.
    """

    module: nn.Module
    cls: type
    lent: LentClass
    links: Links
    proofs: Links
    size: int
    has_methods: bool

    def is_in_place(self) -> bool:
        """Whether the module stands where it stood."""
        return not [name for table, name, module in self.links if table.get(name) is not module]

    def holds(self) -> bool:
        """Whether nothing changed that matters."""
        return (
            type(self.module) is self.cls
            and self.lent.is_untouched
            and "forward" not in vars(self.module)
            and PLACE not in vars(self.module)
            and self.is_in_place()
            and not [name for table, name, code in self.proofs if table.get(name) is not code]
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Loan | None":
        """The loan of the copied module: what is known of where it stands is for the original alone."""
        module: nn.Module = copy.deepcopy(self.module, memo)
        return Loan(module, self.cls, self.lent, (), self.proofs, self.size, self.has_methods)


def shared_module(one: str, other: str) -> UnsupportedModelError:
    """What to raise where one module stands at the two paths."""
    return UnsupportedModelError(
        f"one module stands at {one} and at {other}, so a hook on one would fire for both. Put a copy in one of the "
        "two places: copy.deepcopy(module)."
    )


def _refuse_forward_of_its_own(module: nn.Module, path: str, rebound: Mapping[str, object]) -> None:
    forward = vars(module).get("forward")
    # accelerate's forward calls what it keeps under another name.
    if forward is None or not {"forward", "_old_forward"}.isdisjoint(rebound):
        return
    raise ReplacedCodeError(
        f"the forward of {path or type(module).__name__} was replaced, on this one module, by {describe(forward)}: it "
        "need not run the code that hook points are in, so a hook might never fire. Take it off while hooks are on."
    )


def _take_back(module: nn.Module, loan: Loan, attributes: Mapping[str, object]) -> None:
    values = vars(module)
    old = type(module)
    new = loan.cls if old is loan.lent.cls else without(old, loan.lent)
    object.__setattr__(module, "__class__", new)
    values.pop(PLACE, None)
    for name in attributes:
        values.pop(name, None)
    if len(values) != loan.size or loan.has_methods:
        values.update(rebound(module, old, new))
