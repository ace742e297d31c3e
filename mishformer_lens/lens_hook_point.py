"""TransformerLens's interface of a hook point, without TransformerLens.

The names, arguments and meanings are those of ``transformer_lens.hook_points.HookPoint``, which code that takes one
relies on. TransformerLens itself is imported nowhere here: it takes seconds and pins other packages.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Direction = Literal["fwd", "bwd", "both"]
"""Hooks of the forward pass, of the backward pass, or both."""

_THEIRS = "transformer_lens.hook_points"


@dataclass
class LensHandle:
    """What a hook point keeps of a hook.

    Attributes:
        hook: torch's handle, by which it is taken off.
        is_permanent: whether it stays until permanent hooks are removed too.
        context_level: how deep in ``with model.hooks(...)`` it was added, if it was.
        user_hook: the function that was given.
    """

    hook: RemovableHandle
    is_permanent: bool = False
    context_level: int | None = None
    user_hook: Callable[..., Any] | None = None

    def matches(self, including_permanent: bool, level: int | None) -> bool:
        """Whether it is among those that are asked for: of ``level``, or of any where that is None."""
        return including_permanent or (not self.is_permanent and (level is None or self.context_level == level))


class LensHookPoint(nn.Module):
    """A module that returns its argument, and that functions of ``(activation, hook=hook_point)`` are attached to.

    It is a ``transformer_lens.hook_points.HookPoint`` by ``isinstance`` as soon as TransformerLens is imported.

    Attributes:
        name: its name in the model, such as ``blocks.0.attn.hook_q``.
        ctx: whatever hooks want to keep between calls.
        fwd_hooks, bwd_hooks: the handles of the hooks that are on, in the order in which they run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fwd_hooks: list[LensHandle] = []
        self.bwd_hooks: list[LensHandle] = []
        self.ctx: dict[Any, Any] = {}
        # A string as soon as it is a model's; before, None.
        self.name: Any = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # isinstance() asks for this where the type is not of the class: so TransformerLens may be imported later.
        theirs = vars(sys.modules[_THEIRS]).get("HookPoint") if _THEIRS in sys.modules else None
        own: Any = type(self)
        return own if theirs is None else _of_both(own, theirs)

    def add_perma_hook(self, hook: Callable[..., Any], dir: Literal["fwd", "bwd"] = "fwd") -> LensHandle:  # noqa: A002 - TransformerLens's name
        """Add a hook that stays when the hooks of a context, or all that are not permanent, are removed."""
        return self.add_hook(hook, dir=dir, is_permanent=True)

    def add_hook(
        self,
        hook: Callable[..., Any],
        dir: Literal["fwd", "bwd"] = "fwd",  # noqa: A002 - TransformerLens's name
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> LensHandle:
        """Call ``hook(activation, hook=hook_point)`` in each forward pass, or with the gradient in each backward pass.

        What it returns takes the place of the activation, of the same shape; with None that stays as it is. The hook
        of a backward pass may return the gradient or a tuple of it.

        Raises:
            ValueError: ``dir`` is neither "fwd" nor "bwd".
        """
        if dir not in ("fwd", "bwd"):
            raise ValueError(f"dir is {dir!r}, and a hook runs in the forward pass, 'fwd', or the backward pass, 'bwd'")
        if dir == "fwd":
            attached = self.register_forward_hook(_forward_hook(hook), prepend=prepend)
        else:
            attached = self.register_full_backward_hook(_backward_hook(hook), prepend=prepend)
        handles = self.fwd_hooks if dir == "fwd" else self.bwd_hooks
        handle = LensHandle(attached, is_permanent, level, hook)
        handles.insert(0 if prepend else len(handles), handle)
        return handle

    def has_hooks(
        self,
        dir: Direction = "both",  # noqa: A002 - TransformerLens's name
        including_permanent: bool = True,
        level: int | None = None,
    ) -> bool:
        """Whether hooks are on, of a direction and a level if those are given.

        Raises:
            ValueError: ``dir`` is no direction.
        """
        handles = (each for name in _directions(dir) for each in vars(self)[f"{name}_hooks"])
        return any(each.matches(including_permanent, level) for each in handles)

    def remove_hooks(
        self,
        dir: Direction = "fwd",  # noqa: A002 - TransformerLens's name
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Take hooks off: all of a direction that are not permanent, or of a level, or the permanent ones too.

        Raises:
            ValueError: ``dir`` is no direction.
        """
        for name in _directions(dir):
            handles: list[LensHandle] = vars(self)[f"{name}_hooks"]
            setattr(self, f"{name}_hooks", [each for each in handles if not each.matches(including_permanent, level)])
            for each in handles:
                if each.matches(including_permanent, level):
                    each.hook.remove()

    def clear_context(self) -> None:
        """Forget what hooks kept in ``ctx``."""
        self.ctx = {}

    def layer(self) -> int:
        """The index of its block.

        Raises:
            ValueError: it has no name, or is in no block.
        """
        parts = (self.name or "").split(".")
        if len(parts) < 2 or not parts[1].isdigit():
            raise ValueError(f"the hook point {self.name!r} is in no block: only names like 'blocks.0.…' have a layer")
        return int(parts[1])

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        """Its argument."""
        return activation

    def extra_repr(self) -> str:
        counts = {"forward": len(self.fwd_hooks), "backward": len(self.bwd_hooks)}
        return ", ".join([str(self.name), *(f"{count} {what} hooks" for what, count in counts.items() if count)])


def _directions(given: str) -> tuple[str, ...]:
    if given not in get_args(Direction):
        raise ValueError(f"dir is {given!r}, and it is one of 'fwd', 'bwd' and 'both'")
    return ("fwd", "bwd") if given == "both" else (given,)


def _forward_hook(hook: Callable[..., Any]) -> Callable[..., Any]:
    def run(point: nn.Module, _inputs: Any, activation: Any) -> Any:
        return hook(activation, hook=point)

    return run


def _backward_hook(hook: Callable[..., Any]) -> Callable[..., Any]:
    def run(point: nn.Module, _inputs: Any, gradients: Any) -> Any:
        replaced = hook(gradients[0], hook=point)
        return (replaced,) if isinstance(replaced, torch.Tensor) else replaced

    return run


@functools.cache
def _of_both(own: type, theirs: type) -> type:
    """A class that is a subclass of both: what says so of an object that has none of TransformerLens's code."""
    return type(own.__name__, (own, theirs), {"__module__": own.__module__})
