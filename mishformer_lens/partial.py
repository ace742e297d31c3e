"""Running only some of a HuggingFace model's layers, without knowing how its release loops over them.

What is left out is left out of one pass: the first of the base model in the calling thread. Another thread that runs
the same model meanwhile runs all of it, and so does a hook that runs the model inside that pass.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator
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


class _Pass:
    """One pass of a base model: that which the thread that made this begins next."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._depth = 0

    def is_running(self) -> bool:
        """Whether this pass itself runs, in the calling thread; not one inside of it."""
        return self._depth == 1 and threading.get_ident() == self._thread

    @contextlib.contextmanager
    def of(self, base: nn.Module) -> Iterator[None]:
        """Inside the context, notice when passes of ``base`` begin and end."""

        def begin(*_: object) -> None:
            self._depth += threading.get_ident() == self._thread

        def end(*_: object) -> None:
            self._depth -= threading.get_ident() == self._thread

        begins = base.register_forward_pre_hook(begin, prepend=True)
        ends = base.register_forward_hook(end, always_call=True)
        try:
            yield
        finally:
            begins.remove()
            ends.remove()


@contextlib.contextmanager
def stop_before(base: nn.Module, module: nn.Module) -> Iterator[None]:
    """End the pass of ``base`` with :class:`Stopped` when it comes to ``module``, a layer or the final layer norm."""
    this = _Pass()

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if this.is_running():
            raise Stopped(args[0] if args else kwargs["hidden_states"])

    with this.of(base):
        handle = module.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@contextlib.contextmanager
def start_at(
    instrumentation: "Instrumentation",
    layer: int,
    residual: torch.Tensor | None,
    stand_ins: Iterable[nn.Module] = (),
) -> Iterator[None]:
    """Leave out the layers before ``layer``, and hand ``residual`` to that one.

    The embedding still runs, since the model computes masks and rotary embeddings beside it; it is ignored, and its
    hook points do not fire.

    Args:
        stand_ins: what runs in the places of the layers that are left out.

    Raises:
        NotInstrumentedError: the hook points were removed.
    """
    this = _Pass()
    left = list(instrumentation.blocks.children())[layer:]
    kept = nn.ModuleList([*stand_ins, *left])

    def replace(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not this.is_running():
            return None
        return (residual, *args[1:]), {name: value for name, value in kwargs.items() if name != "hidden_states"}

    with contextlib.ExitStack() as context:
        for spec in instrumentation.family.embedding_hooks:
            context.enter_context(instrumentation.hook_points[spec.name].silent(this.is_running))
        # The base model's patched class looks for the blocks that this pass keeps. A first layer that is lent is not
        # checkpointed: where it is computed again, nobody hands it the residual stream.
        first = instrumentation.place(layer, "") if left else instrumentation.place(None, "ln_final")
        handle = context.enter_context(first.lent()).register_forward_pre_hook(replace, with_kwargs=True, prepend=True)
        context.callback(handle.remove)
        context.enter_context(this.of(instrumentation.model))
        before = _partial_passes()
        _kept.passes = [*before, (instrumentation.model, this, kept)]
        context.callback(_restore, before)
        yield


_Partial = tuple[nn.Module, _Pass, nn.Module]


def kept_blocks(base: nn.Module) -> nn.Module | None:
    """The blocks of a base model that the pass which the calling thread is in runs; None for all."""
    return next((kept for model, each, kept in _partial_passes() if model is base and each.is_running()), None)


def _partial_passes() -> list[_Partial]:
    found: list[_Partial] = vars(_kept).get("passes", [])
    return found


def _restore(passes: list[_Partial]) -> None:
    _kept.passes = passes
