"""The hook point: a TransformerLens ``HookPoint`` that costs next to nothing while nobody listens.

Patched code calls it with the tensor as HuggingFace has it; hooks see the tensor in TransformerLens's axis order.
Importing this module imports torch and TransformerLens.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformer_lens.hook_points import HookPoint as _TransformerLensHookPoint

from mishformer_lens.errors import HookShapeError

# One thread may take a hook off while another attaches one to the same module. Reentrant: a finalizer may do either.
_listening = threading.RLock()


class HookPoint(_TransformerLensHookPoint):
    """A place in the forward pass where an activation can be read and replaced.

    Calling it returns its argument, the very same tensor, unless a hook is attached. It is a TransformerLens hook
    point: ``add_hook``, ``remove_hooks``, ``ctx`` and ``name`` are TransformerLens's own.

    Attributes:
        listening: False where nothing was ever attached, or all of it was taken off again; then the hook point is idle.
            Where it is True, :meth:`is_active` tells.
    """

    def __init__(self) -> None:
        super().__init__()
        # One plain attribute is the cheapest thing to look at, and torch.compile sets a guard on it; on torch's tables
        # of hooks it does not, so that a hook attached after compilation would never run.
        self.listening = False
        self._observers: tuple[Observer, ...] = ()
        self._groups: tuple[HookGroup, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        # torch's own looks for parameters and modules first: half the time of making 300 hook points. What every cache
        # sets, 200 times, goes into the instance directly.
        if isinstance(value, nn.Module | torch.Tensor):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def _listen(self, listening: bool) -> None:
        with _listening:
            if listening != self.listening:
                self.__dict__["listening"] = listening
                for group in self._groups:
                    group.count(1 if listening else -1)

    def join(self, group: "HookGroup") -> None:
        """Let ``group`` know from now on whether this hook point is listening."""
        self._groups = (*self._groups, group)

    def add_observer(self, observer: "Observer") -> None:
        """Call ``observer(activation, hook_point)`` whenever the activation was computed, after all hooks.

        An observer sees what the hooks made of the activation and cannot replace it. It costs a fraction of a hook.
        """
        self.__dict__["_observers"] = (*self._observers, observer)
        self._listen(True)

    def remove_observer(self, observer: "Observer") -> None:
        """Take an observer off again; nothing happens where it is not on."""
        others = () if self._observers == (observer,) else tuple(o for o in self._observers if o is not observer)
        self.__dict__["_observers"] = others
        self._listen(bool(others) or self.may_edit())

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> Any:
        self._listen(True)
        return super().register_forward_hook(*args, **kwargs)

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> Any:
        self._listen(True)
        return super().register_forward_pre_hook(*args, **kwargs)

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> Any:
        self._listen(True)
        return super().register_full_backward_hook(*args, **kwargs)

    def register_full_backward_pre_hook(self, *args: Any, **kwargs: Any) -> Any:
        self._listen(True)
        return super().register_full_backward_pre_hook(*args, **kwargs)

    def remove_hooks(self, *args: Any, **kwargs: Any) -> None:
        super().remove_hooks(*args, **kwargs)
        self._listen(self.is_active())

    def is_active(self) -> bool:
        """Whether any hook is attached, forward or backward."""
        # Looked up even where somebody was listening: a hook may have been removed through its handle.
        return self.listening and (bool(self._observers) or self.may_edit())

    def may_edit(self) -> bool:
        """Whether any hook is attached that can replace the activation: observers cannot."""
        return bool(self._forward_hooks or self._backward_hooks or self._forward_pre_hooks or self._backward_pre_hooks)

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """Let hooks see and replace an activation that is in TransformerLens's axis order already.

        Raises:
            HookShapeError: a hook returned something that is not a tensor of the activation's shape.
        """
        if not self.listening:
            return activation
        result = self._edited(activation) if self.may_edit() else activation
        for observer in self._observers:
            observer(result, self)
        return result

    def changed(self, activation: torch.Tensor) -> torch.Tensor | None:
        """As calling it, for an activation that the model does not compute itself: what the hooks made of it.

        They work on a copy. None where they left it as it was, and no backward hook waits for its gradient.

        Raises:
            HookShapeError: as calling it.
        """
        if not self.may_edit():
            self(activation)
            return None
        seen = activation.clone()
        countable = not (
            seen.is_inference() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        )
        version = seen._version if countable else -1
        result = self._checked(seen, self._run_hooks(seen))
        for observer in self._observers:
            observer(result, self)
        return None if countable and result is seen and seen._version == version else result

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        """What the hooks get: a copy, where an edit in place would not have the right gradient."""
        return _own_copy(activation) if activation.requires_grad and torch.is_grad_enabled() else activation

    def _edited(self, activation: torch.Tensor) -> torch.Tensor:
        # Where torch runs the hooks, it calls forward itself.
        seen = activation if self._needs_torch() else self.forward(activation)
        return self._checked(activation, self._run_hooks(seen))

    def _checked(self, activation: torch.Tensor, result: Any) -> torch.Tensor:
        if result is not activation and (not isinstance(result, torch.Tensor) or result.shape != activation.shape):
            raise _shape_error(self.name, activation, result)
        return _laid_out_like(activation, result)

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
        if not (self.listening and self.is_active()):
            return activation
        seen = (activation.clone() if copy else activation).transpose(1, 2)
        result = self(seen)
        return _laid_out_like(activation, result.transpose(1, 2)) if self.may_edit() else activation

    def for_batch(self, activation: torch.Tensor, batch: int) -> torch.Tensor:
        """As calling it, for an activation ``[1, pos, d_model]`` that hooks see as ``[batch, pos, d_model]``."""
        if not self.is_active():
            return activation
        result = self(activation.expand(batch, -1, -1).clone())
        return result if self.may_edit() else activation

    def copied(self, activation: torch.Tensor) -> torch.Tensor:
        """As calling it; an edit, in place or not, does not reach the other users of ``activation``."""
        if not self.is_active():
            return activation
        return self(activation.clone() if self.may_edit() else activation)


class HookGroup:
    """Hook points that are asked together whether anybody listens to one of them.

    Args:
        hooks: hook points that nobody listens to yet.

    Attributes:
        hooks: the hook points.
        listening: whether any of them is ``listening``: one look instead of one at each.
    """

    def __init__(self, *hooks: HookPoint) -> None:
        self.hooks = hooks
        self.listening = False
        self._number = 0
        for hook in hooks:
            hook.join(self)

    def count(self, change: int) -> None:
        """Take note that one more of them is listening, or one less."""
        self._number += change
        # Not the number itself: torch.compile would compile anew for each.
        self.listening = self._number > 0

    def is_active(self) -> bool:
        """Whether any of them has a hook."""
        return self.listening and any(hook.is_active() for hook in self.hooks)


def _own_copy(activation: torch.Tensor) -> torch.Tensor:
    """A copy with the strides of ``activation``, on which the bits of later products may depend."""
    return activation.new_empty_strided(activation.shape, activation.stride()).copy_(activation)


def _laid_out_like(activation: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """``result``, contiguous where ``activation`` is: HuggingFace's code takes views of it that need that."""
    return result.contiguous() if activation.is_contiguous() else result


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


Observer = Callable[[torch.Tensor, HookPoint], object]
"""What :meth:`HookPoint.add_observer` takes."""
