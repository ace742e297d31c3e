"""Lending live modules a patched class, and taking it back.

While nobody listens, a module is of its own class and carries nothing of this library. With the first hook or observer
on one of its hook points it is lent the patched class made for the class that it has then; with the last it gets back
what it has by then, less what was lent.
"""

import contextlib
import copy
import dataclasses
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mishformer_lens.errors import NotInstrumentedError, TracedCacheError
from mishformer_lens.hooks import HookPoint
from mishformer_lens.lent_classes import PLACE, over, rebound
from mishformer_lens.listening import LOCK
from mishformer_lens.loans import Loan, Path, refuse_forward_of_its_own, shared_module, take_back
from mishformer_lens.on_top import parametrized

if TYPE_CHECKING:
    from mishformer_lens.instrumentation import Instrumentation


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
        # Places of parts inside.
        self.parts: list[Place] = []
        if parent is not None:
            parent.parts.append(self)
        # The hook points whose patched code is here.
        self.points: list[HookPoint] = []
        # How many others need the module to be lent: parts in it that are, and passes of a special kind.
        self.holders = 0
        self.is_lent = False
        self.module: nn.Module | None = None
        self.attributes: Mapping[str, object] = {}
        self._checkpointed = False
        # One entry for each pass that is in the module: to append and to pop is atomic.
        self.passes: list[None] = []
        # What is to be looked at when a pass leaves the module: what nobody needs any more, here and inside.
        self.waiting: list[Place] = []
        self._loan: Loan | None = None

    @property
    def is_edited(self) -> bool:
        """Whether a hook that may edit is on a hook point here or of a part inside."""
        return any(point.may_edit() for point in self.points) or any(place.is_edited for place in self.parts)

    @property
    def is_running(self) -> bool:
        """Whether a pass is in the module."""
        return bool(self.passes)

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
        if self._is_needed() is self.is_lent:
            return
        parent = self.parent
        if self.is_lent:
            self.is_lent = False
            self.settle()
            if parent is not None:
                parent._release()
            return
        if parent is not None:
            parent._hold()
        try:
            self._lend()
        except BaseException:  # an interrupt, too, leaves everything as it was
            if parent is not None:
                parent._release()
            raise
        self.is_lent = True

    def _is_needed(self) -> bool:
        if self.instrumentation is not None and not self.instrumentation.active:
            return False
        if self.holders:
            return True
        # Half the time of any() with a generator, and every cache asks twice for every part.
        for point in self.points:  # noqa: SIM110
            if point.listening:
                return True
        return False

    def _hold(self) -> None:
        """Have the module lent for one more that needs it. For what it raises see :meth:`update`."""
        self.holders += 1
        if not self.is_lent:
            try:
                self.update()
            except BaseException:
                self.holders -= 1
                raise

    def _release(self) -> None:
        self.holders -= 1
        if not self.holders:
            self.update()

    @contextlib.contextmanager
    def lent(self) -> Iterator[nn.Module]:
        """Have the module lent its patched class inside the context. For what it raises see :meth:`update`."""
        self.require()
        with LOCK:
            self._hold()
        assert self.module is not None  # it is lent
        try:
            yield self.module
        finally:
            with LOCK:
                self._release()

    def take_back(self) -> None:
        """Take the patched class back, whoever needs it; where a pass is running, after it."""
        self.is_lent = False
        self.settle()

    def settle(self) -> None:
        """Take the patched class back, if nobody needs it any more; where a pass is running, after it."""
        if self.module is None or self.is_lent or self._waits():
            return
        # Passes that begin from now on see a module that is not lent. One that began in between is waited for.
        values = self.module.__dict__
        values.pop(PLACE, None)
        if self._waits():
            values[PLACE] = self
            return
        module, self.module = self.module, None
        assert self._loan is not None  # the module was lent
        take_back(module, self._loan, self.attributes)

    def _waits(self) -> bool:
        """Whether a pass is in the module, or in one around it. That pass settles this when it leaves."""
        place: Place | None = self
        while place is not None:
            if place.passes:
                place.waiting.append(self)
                if place.passes:  # else it left before it could see that
                    return True
            place = place.parent
        return False

    def refuse(self) -> None:
        """Refuse a pass that must not begin.

        Raises:
            NotInstrumentedError: a part was replaced while its hook points have hooks.
            ReplacedCodeError: the forward of one was.
            TracedCacheError: activations are observed while the model is exported.
        """
        self._refuse_export()
        self._refuse_replaced_parts()

    def _refuse_replaced_parts(self) -> None:
        for place in self.parts:
            if place.is_lent:
                if place._loan is None or not place._loan.is_in_place():
                    raise NotInstrumentedError(
                        f"{place.path} is another module than when its hook points got hooks, so they would not fire. "
                        "Take the hooks off before a part is replaced, and add them again afterwards."
                    )
                place._refuse_foreign_forward()
                if place.parts:
                    place._refuse_replaced_parts()

    def settle_waiting(self) -> None:
        """Take back what nobody needs any more and a pass that left was in the way of."""
        with LOCK:
            waiting = self.waiting[:]
            self.waiting.clear()
            for place in waiting:
                place.settle()

    @property
    def loan(self) -> "Loan":
        """What the module was lent."""
        assert self._loan is not None  # it is lent
        return self._loan

    def _refuse_foreign_forward(self) -> None:
        """Refuse a pass in which a forward that was bound to the module since, as kernels are, would miss hooks."""
        module = self.module
        if module is not None and type(module.__dict__.get("forward")) is types.MethodType:
            cls = type(module)
            refuse_forward_of_its_own(module, self.path, dict(rebound(module, cls, cls)))

    def _refuse_export(self) -> None:
        if self.instrumentation is None or not self.instrumentation.observers:
            return
        if torch.compiler.is_exporting() or torch._C._is_tracing():
            raise TracedCacheError(
                "activations are cached or observed while the model is exported: the exported program would not keep "
                "them. Leave the context of the cache before the model is exported."
            )

    def _lend(self) -> None:
        loan = self._loan
        module = None if loan is None else loan.module()
        if loan is None or module is None:
            module, loan = self._new_loan()
        elif module is self.module and loan.is_in_place():
            return  # a pass is running since it was to be taken back
        elif not loan.holds(module):
            module, loan = self._new_loan()
        self._loan, values = loan, module.__dict__
        loan.lent.follow_original()
        self._tell_of_checkpointing(values)
        loan.rebind(module, values, loan.lent.original, loan.lent.cls)
        # What patched code needs first: another thread may enter the module at once.
        values.update(self.attributes)
        values[PLACE] = self
        # Not by way of torch's own, which looks for parameters and modules first.
        object.__setattr__(module, "__class__", loan.lent.cls)
        self.module = module

    def _new_loan(self) -> tuple[nn.Module, Loan]:
        if self.instrumentation is None:
            raise NotInstrumentedError(
                "this hook point belongs to a part that was copied without its model, so a hook on it would never "
                "fire. Copy the model, or put the part into one, and call mishformer_lens.instrument(model)."
            )
        module, path = self._find()
        other: Place | None = vars(module).get(PLACE)
        if other is not None and other is not self:
            if not (other.path == self.path and other.instrumentation and not other.instrumentation.active):
                raise shared_module(other.path, self.path)
            return module, self._adopt(other, path)
        cls, on_top = type(module), parametrized(module)
        lent, proofs = self.instrumentation.lent_class(self, cls if on_top is None else on_top.__bases__[0])
        if on_top is not None:
            lent = over(on_top, lent)
        if "forward" in vars(module):
            refuse_forward_of_its_own(module, self.path, dict(rebound(module, cls, lent.cls)))
        self.attributes = self.instrumentation.attributes(self)
        return module, Loan.of(module, lent, path, proofs)

    def _adopt(self, other: "Place", path: Path) -> Loan:
        """Take over a module whose hook points were removed in a pass that is still running."""
        assert self.instrumentation is not None
        self.attributes = self.instrumentation.attributes(self)
        self.passes, self.waiting, other.module = other.passes, other.waiting, None
        return dataclasses.replace(other.loan, path=path)

    def find(self) -> nn.Module:
        """The module that stands here now.

        Raises:
            NotInstrumentedError: there is none.
        """
        return self._find()[0]

    def _find(self) -> tuple[nn.Module, Path]:
        """The module that stands here now, and how one comes to it from its parent."""
        assert self.instrumentation is not None  # a copy without its model has no path
        module: nn.Module = self.instrumentation.model
        steps = []
        for name in self.path.split(".") if self.path else ():
            inside = module._modules.get(name)
            if inside is None:
                raise NotInstrumentedError(
                    f"this {type(self.instrumentation.model).__name__} has no part {self.path} any more, so a hook "
                    "there would never fire. instrument(model).hook_points has the names that there are."
                )
            steps.append((weakref.ref(module), name, weakref.ref(inside)))
            module = inside
        # The parent, which is lent too, sees to the way that leads to it.
        above = len(self.parent.path.split(".")) if self.parent is not None and self.parent.path else 0
        return module, tuple(steps[above:])

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
        held_by = [place for place in self.parts if place.is_lent and place.is_edited]
        state = vars(self) | {"passes": [], "waiting": [], "holders": len(held_by)}
        if not (self.is_lent and self.is_edited):
            state |= {"is_lent": False, "module": None, "_loan": None}
        instrumentation = self.instrumentation
        if instrumentation is None or (id(instrumentation) not in memo and id(instrumentation.model) not in memo):
            # A part is copied without its model: its hooks go on acting, and nothing of the model comes along.
            state["instrumentation"] = None
            if self.parent is not None and (self.parent.module is None or id(self.parent.module) not in memo):
                state["parent"] = None
        vars(duplicate).update(copy.deepcopy(state, memo))
        return duplicate
