"""Running only some of a HuggingFace model's layers, without knowing how its release loops over them.

What is left out is left out in the calling thread: another thread that runs the same model meanwhile runs all of it.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from mishformer_lens.instrumentation import Instrumentation

_kept = threading.local()


class Stopped(Exception):  # noqa: N818 - it ends a forward pass on purpose and is always caught
    """Carries the residual stream ``[batch, pos, d_model]`` out of a forward pass that ends early."""

    def __init__(self, residual: torch.Tensor) -> None:
        super().__init__()
        self.residual = residual


@contextlib.contextmanager
def stop_before(module: nn.Module) -> Iterator[None]:
    """End the forward pass with :class:`Stopped` when it comes to ``module``, a layer or the final layer norm."""
    thread = threading.get_ident()

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            raise Stopped(args[0] if args else kwargs["hidden_states"])

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def start_at(instrumentation: "Instrumentation", layer: int, residual: torch.Tensor | None) -> Iterator[None]:
    """Leave out the layers before ``layer``, and hand ``residual`` to that one.

    The embedding still runs, since the model computes masks and rotary embeddings beside it; it is ignored, and its
    hook points do not fire.

    Raises:
        NotInstrumentedError: the hook points were removed.
    """
    thread = threading.get_ident()
    kept = nn.ModuleList(list(instrumentation.blocks.children())[layer:])

    def replace(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if threading.get_ident() != thread:
            return None
        return (residual, *args[1:]), {name: value for name, value in kwargs.items() if name != "hidden_states"}

    with contextlib.ExitStack() as context:
        for spec in instrumentation.family.embedding_hooks:
            context.enter_context(instrumentation.hook_points[spec.name].silent())
        # The base model's patched class looks for the blocks that this thread keeps. A first layer that is lent is not
        # checkpointed: where it is computed again, nobody hands it the residual stream.
        first = instrumentation.place(layer, "") if len(kept) else instrumentation.place(None, "ln_final")
        context.enter_context(first.lent())
        assert first.module is not None  # it is lent
        handle = first.module.register_forward_pre_hook(replace, with_kwargs=True, prepend=True)
        context.callback(handle.remove)
        before = kept_blocks(instrumentation.model)
        _kept.by_model = {**_all_kept(), instrumentation.model: kept}
        context.callback(_keep, instrumentation.model, before)
        yield


def kept_blocks(base: nn.Module) -> nn.Module | None:
    """The blocks of a base model that the calling thread runs; None for all."""
    return _all_kept().get(base)


def _all_kept() -> dict[nn.Module, nn.Module | None]:
    found: dict[nn.Module, nn.Module | None] = vars(_kept).get("by_model", {})
    return found


def _keep(base: nn.Module, blocks: nn.Module | None) -> None:
    _kept.by_model = {model: kept for model, kept in {**_all_kept(), base: blocks}.items() if kept is not None}
