"""The hook point: a TransformerLens ``HookPoint`` that costs next to nothing while nobody listens.

Patched code calls it with the tensor as HuggingFace has it; hooks see the tensor in TransformerLens's axis order.
Importing this module imports torch.
"""

import contextlib
import copy
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.utils.hooks import RemovableHandle

from mishformer_lens.errors import HookShapeError, TracedHookError
from mishformer_lens.lens_hook_point import Direction, LensHookPoint
from mishformer_lens.listening import LOCK, Observer, Together

if TYPE_CHECKING:
    from mishformer_lens.lending import Place


class HookPoint(LensHookPoint):
    """A place in the forward pass where an activation can be read and replaced.

    Calling it returns its argument, the very same tensor, unless a hook is attached. ``add_hook``, ``remove_hooks``,
    ``ctx`` and ``name`` are as TransformerLens's hook point has them.

    Attributes:
        listening: whether a hook or an observer is on. Some passes they miss all the same: :meth:`is_active` tells.
        observers: the observers that are on.
        groups: the groups that it is in.
        places: where the patched code stands that calls it.
        checkpointed: whether the block that it is in was checkpointed when it had no hooks.
        shared: whether others than what comes next have the activation: hooks work on a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        # One plain attribute is the cheapest thing to look at, and torch.compile sets a guard on it; on torch's tables
        # of hooks it does not, so that a hook attached after compilation would never run.
        self.listening = False
        self.observers: tuple[Observer, ...] = ()
        # Whether torch's tables hold a hook: one look instead of one at each.
        self._edits = False
        self.groups: tuple[HookGroup, ...] = ()
        self.places: tuple[Place, ...] = ()
        # What tells whether it is silent for the time being.
        self._silenced: tuple[Callable[[], bool], ...] = ()
        self.checkpointed = False
        self.shared = False

    def __setattr__(self, name: str, value: object) -> None:
        # torch's own looks for parameters and modules first: half the time of making 300 hook points. What every cache
        # sets, 200 times, goes into the instance directly.
        if isinstance(value, nn.Module | torch.Tensor):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def _listen(self, listening: bool) -> None:
        with LOCK:
            if listening != self.listening:
                Together([self]).set_listening(listening)

    def join(self, group: "HookGroup") -> None:
        """Have ``group`` look at this hook point whenever it begins or ceases to listen."""
        self.groups = (*self.groups, group)

    def belong(self, *places: "Place") -> None:
        """Have the modules at ``places`` lent their patched classes from now on while this hook point is listening."""
        self.places = places
        for place in places:
            place.points.append(self)

    def require(self) -> None:
        """Refuse a hook that could never fire.

        Raises:
            NotInstrumentedError: the hook points of this model were removed.
        """
        for place in self.places:
            place.require()

    def add_observer(self, observer: Observer) -> None:
        """Call ``observer(activation, hook_point)`` whenever the activation was computed, after all hooks.

        An observer sees what the hooks made of the activation and cannot replace it. It costs a fraction of a hook.

        Raises:
            NotInstrumentedError, UnsupportedModelError, ReplacedCodeError: it would never be called.
        """
        with LOCK:
            self.require()
            Together([self]).add_observers([observer])

    def remove_observer(self, observer: Observer) -> None:
        """Take an observer off again; nothing happens where it is not on."""
        Together([self]).remove_observers([observer])

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> Any:
        with self._registering():
            return _Handle(super().register_forward_hook(*args, **kwargs), self)

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> Any:
        with self._registering():
            return _Handle(super().register_forward_pre_hook(*args, **kwargs), self)

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> Any:
        with self._registering():
            return _Handle(super().register_full_backward_hook(*args, **kwargs), self)

    def register_full_backward_pre_hook(self, *args: Any, **kwargs: Any) -> Any:
        with self._registering():
            return _Handle(super().register_full_backward_pre_hook(*args, **kwargs), self)

    @contextlib.contextmanager
    def _registering(self) -> Iterator[None]:
        """Be listening from before a hook is there; not, where torch refuses the hook."""
        with LOCK:
            self.require()
            self._listen(True)
            try:
                yield
            finally:
                self.settle()

    def remove_hooks(
        self,
        dir: Direction = "fwd",  # noqa: A002 - TransformerLens's name
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        super().remove_hooks(dir, including_permanent, level)
        self.settle()

    def settle(self) -> None:
        """Look at torch's tables anew, after a hook came or went, and listen no more where none is left."""
        with LOCK:
            self._edits = bool(
                self._forward_hooks or self._backward_hooks or self._forward_pre_hooks or self._backward_pre_hooks
            )
            self._listen(self._edits or bool(self.observers))

    @contextlib.contextmanager
    def silent(self, when: Callable[[], bool]) -> Iterator[None]:
        """Call no hook inside the context where ``when`` says so."""
        with LOCK:
            self._silenced = (*self._silenced, when)
        try:
            yield
        finally:
            with LOCK:
                self._silenced = tuple(each for each in self._silenced if each is not when)

    def is_active(self) -> bool:
        """Whether any hook is attached, forward or backward."""
        return self.listening and not ((self._silenced or self.checkpointed) and self._is_silent())

    def _is_silent(self) -> bool:
        """Whether hooks are to miss the pass that is running in this thread."""
        # What runs inside of a backward pass here is a block without hooks in the forward pass that is computed again:
        # blocks with hooks are not checkpointed.
        again = self.checkpointed and torch._C._current_graph_task_id() != -1  # torch.utils.checkpoint asks this too
        return again or any(when() for when in self._silenced)

    def may_edit(self) -> bool:
        """Whether any hook is attached that can replace the activation: observers cannot."""
        return self._edits

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """Let hooks see and replace an activation that is in TransformerLens's axis order already.

        Raises:
            HookShapeError: a hook returned something that is not a tensor of the activation's shape.
            TracedHookError: torch.fx traces the model.
        """
        if not self.listening or ((self._silenced or self.checkpointed) and self._is_silent()):
            return activation
        # _heard(), without the call: every activation of a cache comes by here.
        if self._edits:
            activation = self._edited(activation)
        for observer in self.observers:
            observer(activation, self)
        return activation

    def _heard(self, activation: torch.Tensor) -> torch.Tensor:
        """As calling it, where it is known to be active."""
        if self._edits:
            activation = self._edited(activation)
        for observer in self.observers:
            observer(activation, self)
        return activation

    def changed(self, activation: torch.Tensor) -> torch.Tensor | None:
        """As calling it while it is active, for an activation that the model does not compute itself.

        Hooks work on a copy. None where they left it as it was, and no backward hook waits for its gradient.

        Raises:
            HookShapeError, TracedHookError: as calling it.
        """
        if not self.may_edit():
            self._heard(activation)
            return None
        self._refuse_proxy(activation)
        seen = activation.clone()
        countable = not (
            torch.compiler.is_compiling() or seen.is_inference() or torch._C._are_functorch_transforms_active()
        )
        version = seen._version if countable else -1
        result = self._checked(seen, self._run_hooks(seen))
        for observer in self.observers:
            observer(result, self)
        return None if countable and result is seen and seen._version == version else result

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        """What the hooks get: a copy, where an edit in place would not have the right gradient or reach others."""
        copies = self.shared or (activation.requires_grad and torch.is_grad_enabled())
        return _own_copy(activation) if copies else activation

    def _edited(self, activation: torch.Tensor) -> torch.Tensor:
        self._refuse_proxy(activation)
        # Where torch runs the hooks, it calls forward itself.
        seen = activation if self._needs_torch() else self.forward(activation)
        return self._checked(activation, self._run_hooks(seen))

    def _refuse_proxy(self, activation: object) -> None:
        """A stand-in that torch.fx traces with has no shape and no gradient, nor a version that tells of edits."""
        if isinstance(activation, fx.Proxy):
            raise TracedHookError(
                f"{self.name} has a hook, which may edit, and torch.fx traces the model with stand-ins for tensors: "
                "what a hook returns for one cannot be checked. Take the hook off before the model is traced, and put "
                "it on the model itself, or look on with an observer."
            )

    def _checked(self, activation: torch.Tensor, result: Any) -> torch.Tensor:
        if result is not activation and (not isinstance(result, torch.Tensor) or result.shape != activation.shape):
            raise _shape_error(self.name, activation, result)
        return laid_out_like(activation, result)

    def _needs_torch(self) -> bool:
        return bool(
            self._backward_hooks
            or self._forward_pre_hooks
            or self._backward_pre_hooks
            or self._forward_hooks_with_kwargs
        )

    def _run_hooks(self, activation: torch.Tensor) -> Any:
        if self._needs_torch():
            return super().__call__(activation)
        # What torch does for plain forward hooks, without the machinery around it: half the cost of a full cache.
        result = activation
        for hook in tuple(self._forward_hooks.values()):
            replaced = hook(self, (activation,), result)
            if replaced is not None:
                result = replaced
        return result

    def heads_first(self, activation: torch.Tensor, copy: bool = False) -> torch.Tensor:
        """As calling it, for an activation ``[batch, head_index, pos, d_head]``.

        Hooks see ``[batch, pos, head_index, d_head]``. With ``copy``, they work on a copy, so that an edit in place
        does not reach a cache that holds ``activation``, nor a later pass that fills it what observers keep.
        """
        if not self.listening or ((self._silenced or self.checkpointed) and self._is_silent()):
            return activation
        edits = self._edits  # a hook may take itself off
        seen = (activation.clone() if copy else activation).transpose(1, 2)
        result = self._heard(seen)
        if result is seen and not (copy and edits):
            return activation
        return laid_out_like(activation, result.transpose(1, 2))

    def joined(self, activation: torch.Tensor, d_head: int, copy: bool = False) -> torch.Tensor:
        """As calling it, for an activation ``[batch, pos, head_index * d_head]`` that hooks see with the heads apart.

        With ``copy``, they work on a copy, so that what the model does to ``activation`` in place is not seen later.
        """
        if not self.listening or ((self._silenced or self.checkpointed) and self._is_silent()):
            return activation
        edits = self._edits  # a hook may take itself off
        seen = (activation.clone() if copy else activation).unflatten(-1, (-1, d_head))
        result = self._heard(seen)
        if result is seen and not (copy and edits):
            return activation
        joined = result.flatten(-2)
        return laid_out_like(activation, joined.clone() if copy else joined)

    def for_batch(self, activation: torch.Tensor, batch: int) -> torch.Tensor:
        """As calling it, for an activation ``[1, pos, d_model]`` that hooks see as ``[batch, pos, d_model]``."""
        if not self.is_active():
            return activation
        if not self.may_edit():
            self._heard(activation if activation.shape[0] == batch else activation.expand(batch, -1, -1).clone())
            return activation
        return self._heard(activation.expand(batch, -1, -1).clone())

    def copied(self, activation: torch.Tensor) -> torch.Tensor:
        """As calling it; an edit, in place or not, does not reach the other users of ``activation``."""
        if not self.is_active():
            return activation
        return self._heard(activation.clone() if self.may_edit() else activation)

    def __deepcopy__(self, memo: dict[int, Any]) -> "HookPoint":
        """A copy with its hooks. Observers stay with the original."""
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        state = self.__dict__ | {"observers": (), "listening": self._edits}
        duplicate.__dict__.update(copy.deepcopy(state, memo))
        return duplicate

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled, a model's hook point is the one of that name on the model that is loaded."""
        instrumentation = self.places[0].instrumentation if self.places else None
        if instrumentation is None:
            # Not torch's: pickle compares the type with __class__, which is another once TransformerLens is imported.
            return type(self), (), dict(vars(self))
        return operator.getitem, (instrumentation, self.name)


class _Handle(RemovableHandle):
    """torch's handle of a hook, which lets the hook point know when the hook is gone."""

    def __init__(self, handle: RemovableHandle, point: HookPoint) -> None:
        vars(self).update(vars(handle))
        self._point = point

    def remove(self) -> None:
        super().remove()
        self._point.settle()

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._point

    def __setstate__(self, state: Any) -> None:
        inner, self._point = state
        super().__setstate__(inner)


class HookGroup:
    """Hook points that are asked together whether anybody listens to one of them.

    Attributes:
        hooks: the hook points.
        listening: whether any of them is ``listening``: one look instead of one at each.
    """

    def __init__(self, *hooks: HookPoint) -> None:
        self.hooks = hooks
        self.look()
        for hook in hooks:
            hook.join(self)

    def look(self) -> None:
        """Look anew whether any of them is listening."""
        self.listening = any(hook.listening for hook in self.hooks)

    def __deepcopy__(self, memo: dict[int, Any]) -> "HookGroup":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        # Observers stay with the original.
        state = self.__dict__ | {"listening": any(hook.may_edit() for hook in self.hooks)}
        duplicate.__dict__.update(copy.deepcopy(state, memo))
        return duplicate

    def is_active(self) -> bool:
        """Whether any of them has a hook."""
        return self.listening and any(hook.is_active() for hook in self.hooks)


def _own_copy(activation: torch.Tensor) -> torch.Tensor:
    """A copy with the strides of ``activation``, on which the bits of later products may depend."""
    return activation.new_empty_strided(activation.shape, activation.stride()).copy_(activation)


def laid_out_like(activation: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """``result`` with the strides of ``activation``, on which views and the bits of later products depend."""
    if activation.is_contiguous():
        return result.contiguous()
    strides = activation.stride()
    if result.stride() == strides or 0 in strides:
        return result
    return result.new_empty_strided(result.shape, strides).copy_(result)


def _shape_error(name: str | None, activation: torch.Tensor, result: object) -> HookShapeError:
    shape = list(activation.shape)
    if isinstance(result, torch.Tensor):
        found = f"a tensor of shape {list(result.shape)}"
    else:
        found = f"{type(result).__name__}: {result!r:.80}"
    return HookShapeError(
        f"a hook on {name} returned {found}, where the activation has shape {shape}. "
        f"Return a tensor of shape {shape}, or None to leave the activation as it is."
    )
