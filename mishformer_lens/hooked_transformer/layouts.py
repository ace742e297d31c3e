"""Where each family keeps the weights that TransformerLens has names for, and how to look at them in its axis order."""

import dataclasses
from typing import Any, Final

import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of HuggingFace modules: the embeddings seen from the base model, the others from a block."""

    embed: str
    pos_embed: str | None
    qkv: str
    output: str
    mlp_in: str
    mlp_out: str


LAYOUTS: Final = {
    "gpt2": Layout("wte", "wpe", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "gpt_neox": Layout(
        "embed_in",
        None,
        "attention.query_key_value",
        "attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    ),
}


def matrix_of(module: nn.Module) -> torch.Tensor:
    """The weight of a projection as ``[d_in, d_out]``, a view: ``x @ matrix`` is what the module computes."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    # torch.nn.Linear keeps [d_out, d_in]; the Conv1D of transformers keeps [d_in, d_out].
    return weight.T if isinstance(module, nn.Linear) else weight


def bias_of(module: nn.Module) -> torch.Tensor:
    """The bias ``[d_out]`` of a projection; zeros, attached to nothing, where it has none."""
    bias = module.bias
    if isinstance(bias, torch.Tensor):
        return bias
    matrix = matrix_of(module)
    return torch.zeros(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)


def ensure_bias(module: Any) -> bool:
    """Give a projection without a bias one of zeros. Return whether it needed one."""
    if module.bias is not None:
        return False
    module.bias = nn.Parameter(bias_of(module), requires_grad=bool(matrix_of(module).requires_grad))
    return True
