"""A stand-in for flash attention: the interface of the real kernel, computed by plain operations on any device.

Like the real one it takes a padding mask ``[batch, key_pos]`` or None, knows that it is causal, and gives no weights.
"""

from typing import Any

import torch

from tests import capabilities
from tests.models import HEADS, Case, make_model

calls: list[str] = []
"""One entry for every call of the stand-in."""


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    *,
    causal: bool = True,
    sliding_window: int | None = None,
    **_: Any,
) -> torch.Tensor:
    """Attention on ``[batch, head_index, pos, d_head]``; a padded position, or one that may see nothing, gets zeros."""
    calls.append("called")
    queries, keys = query.shape[-2], key.shape[-2]
    places = torch.arange(keys - queries, keys, device=query.device)[:, None]
    others = torch.arange(keys, device=query.device)
    allowed = (places >= others) if causal else torch.ones_like(places >= others)
    if sliding_window is not None:
        allowed = allowed & ((places - others).abs() < sliding_window)
    if mask is not None:
        assert mask.dim() == 2, "flash attention takes a padding mask"
        real = mask[:, -keys:].bool()
        allowed = allowed & real[:, None, None, :] & real[:, None, -queries:, None]
    scores = (query.float() @ key.float().transpose(-1, -2)) * (scaling or query.shape[-1] ** -0.5)
    pattern = scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0.0)
    return (pattern @ value.float()).to(value.dtype)


def interface(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **arguments: Any) -> Any:
    """As transformers registers attention functions: gives ``[batch, pos, head_index, d_head]``.

    Like the real one up to 4.55 it asks the module whether it is causal, whatever the caller says.
    """
    arguments["causal"] = module.is_causal
    output = attend(query, key, value, attention_mask, arguments.pop("scaling", None), **arguments)
    return output.transpose(1, 2).contiguous(), None


def flash_attention_forward(query: Any, key: Any, value: Any, attention_mask: Any, *_: Any, **arguments: Any) -> Any:
    """As transformers called flash attention before there was a registry: on ``[batch, pos, head_index, d_head]``."""
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    arguments["causal"] = arguments.pop("is_causal")
    output = attend(query, key, value, attention_mask, arguments.pop("softmax_scale", None), **arguments)
    return output.transpose(1, 2).contiguous()


def register() -> None:
    """Put the stand-in where the family's modules import the real one from.

    Before the first model is hooked: patched code looks names up in a copy of its module's namespace.
    """
    registry = capabilities.attention_functions()
    if registry is not None:
        registry["flash_attention_2"] = interface
    for family in HEADS:
        vars(capabilities.modeling_module(family))["_flash_attention_forward"] = flash_attention_forward


def make(case: Case) -> Any:
    """A model in evaluation mode; with flash attention one that uses the stand-in."""
    return make_flash_model(case) if case.attention == "flash_attention_2" else make_model(case)


def make_flash_model(case: Case) -> Any:
    """A model with flash attention: an eager one changed, since none can be made without the real package."""
    model = make_model(Case(case.kind, "eager", case.dtype))
    model.config._attn_implementation = "flash_attention_2"
    if "_attn_implementation" in vars(model.base_model):
        model.base_model._attn_implementation = "flash_attention_2"
    classes: Any = capabilities.attention_classes(case.family)
    for module in model.modules():
        if classes and type(module) is classes["eager"]:
            module.__class__ = classes["flash_attention_2"]
            module._flash_attn_uses_top_left_mask = False
    return model
