"""Running only some of a HuggingFace model's layers, without knowing how its release loops over them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mishformer_lens.hooks import HookPoint
from mishformer_lens.instrumentation import Instrumentation


class Stopped(Exception):  # noqa: N818 - it ends a forward pass on purpose and is always caught
    """Carries the residual stream ``[batch, pos, d_model]`` out of a forward pass that ends early."""

    def __init__(self, residual: torch.Tensor) -> None:
        super().__init__()
        self.residual = residual


@contextlib.contextmanager
def stop_before(module: nn.Module) -> Iterator[None]:
    """End the forward pass with :class:`Stopped` when it comes to ``module``, a layer or the final layer norm."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise Stopped(args[0] if args else kwargs["hidden_states"])

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def start_at(instrumentation: Instrumentation, layers: range, residual: torch.Tensor | None) -> Iterator[None]:
    """Leave out the layers before ``layers.start``, and hand ``residual`` to that one.

    The embedding still runs, since the model computes masks and rotary embeddings beside it; it is ignored, and its
    hook points do not fire.
    """
    base, family = instrumentation.model, instrumentation.family
    container = family.components["blocks"]
    every = base.get_submodule(container)
    kept = nn.ModuleList(list(every.children())[layers.start :])

    def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (residual, *args[1:]), {name: value for name, value in kwargs.items() if name != "hidden_states"}

    first = kept[0] if len(kept) else base.get_submodule(family.components["ln_final"])
    handle = first.register_forward_pre_hook(replace, with_kwargs=True, prepend=True)
    silenced = {spec.name: vars(base)[spec.name] for spec in family.embedding_hooks}
    try:
        vars(base).update({name: HookPoint() for name in silenced})
        base.set_submodule(container, kept)
        yield
    finally:
        base.set_submodule(container, every)
        vars(base).update(silenced)
        handle.remove()
