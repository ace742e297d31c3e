"""What tests of live models look at."""

from typing import Any

import torch
from torch import nn

from tests.models import make_tokens


def trace(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that hooking it must give back: classes, attributes, keys, what it looks like."""
    return {
        "classes": [type(module) for module in model.modules()],
        "attributes": [list(vars(module)) for module in model.modules()],
        "values": [[id(value) for value in vars(module).values()] for module in model.modules()],
        "state dict": list(model.state_dict()),
        "pointers": [parameter.data_ptr() for parameter in model.parameters()],
        "modules": [name for name, _ in model.named_modules()],
        "repr": repr(model),
    }


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(make_tokens()).logits
    return result


def zero(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    return torch.zeros_like(activation)
