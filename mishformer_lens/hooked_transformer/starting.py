"""Beginning a pass at a later layer, where models tell layers by how many were before them."""

import contextlib
import sys
from typing import Any

import torch
from torch import nn

from mishformer_lens.instrumentation import Instrumentation
from mishformer_lens.partial import start_at


class _LeftOut(nn.Module):
    """Stands in a layer's place for one pass, so that those behind it keep their numbers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # Not as a part: it is the model's.
        vars(self)["layer"] = layer

    def __getattr__(self, name: str) -> Any:
        """What models ask a layer for, such as of what kind it is."""
        return getattr(vars(self)["layer"], name)

    def forward(self, hidden_states: Any, *_: Any, **__: Any) -> tuple[Any]:
        """Its input, which the first layer that runs does not look at."""
        return (hidden_states,)


def _has_kinds_of_layers(instrumentation: Instrumentation) -> bool:
    """Whether the model's configuration tells layers apart, as where some have a window."""
    # Not to_dict(), which copies all of it.
    return len(set(vars(instrumentation.model.config).get("layer_types") or ())) > 1


def has_cache_of_its_own(instrumentation: Instrumentation) -> bool:
    """Whether the release's models of the family want a cache that knows which layers have windows."""
    return "HybridCache" in vars(sys.modules[instrumentation.family.module_name])


def tells_layers_apart(instrumentation: Instrumentation) -> bool:
    """Whether it matters to the model, or to its cache, which layer of its own a layer is."""
    return _has_kinds_of_layers(instrumentation) or has_cache_of_its_own(instrumentation)


def start_at_place(
    instrumentation: Instrumentation, layer: int, residual: torch.Tensor | None
) -> contextlib.AbstractContextManager[None]:
    """Leave out the layers before ``layer``, and hand ``residual`` ``[batch, pos, d_model]`` to that one.

    As :func:`mishformer_lens.partial.start_at` does it, which takes those layers out of the model's list. Where layers
    are of several kinds others stand in for them: from some 5.x release on a model looks up the mask and the rotary
    embedding of a layer's kind by its place in the list.
    """
    first = list(instrumentation.blocks.children())[:layer] if _has_kinds_of_layers(instrumentation) else []
    return start_at(instrumentation, layer, residual, stand_ins=[_LeftOut(each) for each in first])
