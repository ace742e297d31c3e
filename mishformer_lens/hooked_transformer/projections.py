"""Reading the weights of HuggingFace's modules, whatever a module is that stands where a projection is expected.

A weight is looked at in place. Where that is impossible, since the numbers are packed, elsewhere or inside a wrapper,
an :class:`UnreadableWeightError` says so; nothing here gives bytes or placeholders for a weight.
"""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from mishformer_lens.errors import UnreadableWeightError


def weight_of(module: nn.Module, name: str) -> torch.Tensor:
    """The weight of a module that holds it in the open, in the module's own axis order.

    Args:
        name: what the message calls it, as ``blocks.0.attn.W_Q``.

    Raises:
        UnreadableWeightError: it is quantized, offloaded, or held by a wrapper.
    """
    return _readable(module, "weight", name)


def matrix_of(module: nn.Module, name: str) -> torch.Tensor:
    """The weight of a projection as ``[d_in, d_out]``, a view: ``x @ matrix`` is what the module computes.

    Raises:
        UnreadableWeightError: see :func:`weight_of`.
    """
    weight = weight_of(module, name)
    # torch.nn.Linear keeps [d_out, d_in]; the Conv1D of transformers keeps [d_in, d_out].
    return weight.T if isinstance(module, nn.Linear) else weight


def bias_of(module: nn.Module, name: str) -> torch.Tensor:
    """The bias ``[d_out]`` of a projection; zeros, attached to nothing, where it has none.

    Raises:
        UnreadableWeightError: see :func:`weight_of`.
    """
    if lacks_bias(module):
        matrix = matrix_of(module, name)
        return torch.zeros(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    return _readable(module, "bias", name)


def gain_of(module: nn.Module, name: str, own: bool) -> torch.Tensor:
    """The weight ``[d_model]`` of a norm; ones that belong to nothing where it has none.

    Args:
        own: whether the norm is of a class of its family's own.

    Raises:
        UnreadableWeightError: it is quantized, offloaded, or something else stands in the norm's place.
    """
    if not own:
        return weight_of(module, name)
    if not module._parameters:
        shape = vars(module).get("normalized_shape")
        if shape is None:
            raise _in_its_place(module, name)
        return torch.ones(tuple(shape))
    return _readable(module, "weight", name, own=True)


def shift_of(module: nn.Module, name: str, own: bool) -> torch.Tensor:
    """The bias ``[d_model]`` of a norm; zeros that belong to nothing where it has none.

    Raises:
        UnreadableWeightError: see :func:`gain_of`.
    """
    if own or lacks_bias(module):
        return torch.zeros_like(gain_of(module, name, own))
    return _readable(module, "bias", name)


def ensure_bias(module: nn.Module, name: str) -> bool:
    """Give a projection without a bias one of zeros. Return whether it needed one."""
    if not lacks_bias(module):
        return False
    module.bias = nn.Parameter(bias_of(module, name), requires_grad=bool(matrix_of(module, name).requires_grad))
    return True


def check_assignable(module: nn.Module, kind: str, name: str) -> None:
    """Refuse to write to a weight that the module computes anew in each pass, as a parametrized one.

    Raises:
        UnreadableWeightError: it is no parameter of the module.
    """
    if module._parameters.get(kind) is None:
        raise UnreadableWeightError(
            f"{name} cannot be assigned: the {kind} of this {type(module).__name__} is no parameter of it, but "
            "computed from others. Assign to those, or remove the parametrization first."
        )


def d_out_of(module: nn.Module) -> int | None:
    """How many numbers a projection gives, also where its weight cannot be read; None for an unknown module."""
    if isinstance(module, nn.Linear):
        return _outputs(module)
    return int(module.nf) if isinstance(module, Conv1D) else None


def d_in_of(module: nn.Module) -> int | None:
    """How many numbers a projection takes, also where its weight cannot be read; None for an unknown module."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return int(module.weight.shape[0]) if isinstance(module, Conv1D) else None


def vocabulary_of(embedding: nn.Module) -> int:
    """How many tokens an embedding knows, also where its weight cannot be read."""
    weight: Any = embedding.weight
    if isinstance(weight, torch.Tensor) and _is_plain(weight) and weight.dim() == 2:
        return weight.shape[0]
    return int(embedding.num_embeddings)  # type: ignore[arg-type]


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes; ``meta`` only for one that nothing would fetch the weights of."""
    weight: Any = module.weight
    if weight.device.type == "meta":
        for hook in _offloading(module):
            if hook.execution_device is not None:
                return torch.device(hook.execution_device)
    device: torch.device = weight.device
    return device


def _offloading(module: nn.Module) -> list[Any]:
    """Accelerate's hooks that fetch a module's weights for each pass."""
    # The place where accelerate documents to keep its hook. One that stands for several has them in ``hooks``.
    hook = vars(module).get("_hf_hook")
    several = [] if hook is None else vars(hook).get("hooks", [hook])
    return [each for each in several if "execution_device" in vars(each)]


def lacks_bias(module: nn.Module) -> bool:
    """Whether a projection could have a bias and has none."""
    return "bias" in module._parameters and module._parameters["bias"] is None


def _readable(module: nn.Module, kind: str, name: str, own: bool = False) -> torch.Tensor:
    """``module``'s ``weight`` or ``bias``, if it is what ``name`` stands for.

    Args:
        own: whether the module is of a class of its family's own, so that only itself knows its weight's shape.
    """
    if not (own or isinstance(module, nn.Linear | Conv1D | nn.Embedding | nn.LayerNorm)):
        raise _in_its_place(module, name)
    weight: Any = getattr(module, kind, None)  # a quantized module may have none
    if not isinstance(weight, torch.Tensor):
        raise _quantized(module, name, f"no {kind}")
    if not _is_plain(weight):
        raise _quantized(module, name, f"a {type(weight).__name__} of {weight.dtype}")
    if weight.device.type == "meta" and _offloading(module):
        raise UnreadableWeightError(
            f"{name} is offloaded: accelerate fetches it for each pass, and between passes there is nothing to look "
            f"at. Read it inside `with accelerate.utils.align_module_device(module)`, where module is the "
            f"{type(module).__name__} in model.hf_model, or load the model without offloading."
        )
    expected = tuple(weight.shape) if own else _shape(module, kind)
    if tuple(weight.shape) != expected:
        raise _quantized(module, name, f"a {kind} of shape {list(weight.shape)} instead of {list(expected)}")
    return weight


def _in_its_place(module: nn.Module, name: str) -> UnreadableWeightError:
    return UnreadableWeightError(
        f"{name} cannot be looked at: {type(module).__module__}.{type(module).__name__} stands in its place, and "
        "what it computes is not one matrix that could be shown. Take the wrapper off or merge it into the weight "
        "(peft: merge_and_unload()), or read it through model.hf_model."
    )


def _is_plain(weight: torch.Tensor) -> bool:
    """Whether the tensor's memory holds the numbers that it stands for."""
    kind: Any = type(weight)
    # Classes with a dispatch of their own are stand-ins for other tensors; torch's own (DTensor, FakeTensor) show them.
    own = kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ and not kind.__module__.startswith("torch.")
    return weight.dtype.is_floating_point and not own


def _quantized(module: nn.Module, name: str, found: str) -> UnreadableWeightError:
    return UnreadableWeightError(
        f"{name} cannot be looked at: this {type(module).__module__}.{type(module).__name__} has {found}, so it is "
        "quantized, packed or spread. Hooks and forward passes work all the same. For the weights' numbers dequantize "
        "the model first (model.hf_model.dequantize(), where transformers can), or load it in floating point."
    )


def _shape(module: Any, kind: str) -> tuple[int, ...]:
    if isinstance(module, nn.LayerNorm):
        return tuple(module.normalized_shape)
    if isinstance(module, nn.Embedding):
        # What a person put there decides how many; resizing by hand need not keep the module's own note of it.
        return int(module.weight.shape[0]), module.embedding_dim
    if kind == "bias":
        return (int(module.nf if isinstance(module, Conv1D) else _outputs(module)),)
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.nf)
    return _outputs(module), module.in_features


def _outputs(module: nn.Linear) -> int:
    """How many numbers it gives. A weight that is tied to one that was resized says more than its own note."""
    weight: Any = module._parameters.get("weight")
    whole = isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.shape[1] == module.in_features
    return int(weight.shape[0]) if whole and _is_plain(weight) else module.out_features
