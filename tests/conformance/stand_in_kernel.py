"""A stand-in for flash attention: the interface of the real kernel, computed by plain operations on any device.

Like the real one it takes a padding mask ``[batch, key_pos]`` or None, knows that it is causal, and gives no weights.
"""

from typing import Any

import torch

from tests import capabilities
from tests.kinds import kinds
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
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """Attention on ``[batch, head_index, pos, d_head]``; a padded position, or one that may see nothing, gets zeros.

    Keys and values may have fewer heads. Without a mask, texts of given lengths lie one after another in all rows.
    """
    calls.append("called")
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, 1) for each in (key, value))
    reach = None
    if sliding_window is not None and key.shape[-2] > sliding_window:
        reach = capabilities.window_reach(sliding_window)
    scaling = scaling or query.shape[-1] ** -0.5
    if mask is None and cu_seq_lens_q is not None and cu_seq_lens_k is not None:
        rows = [each.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None] for each in (query, key, value)]
        texts = []
        for each in zip(*(_spans(ends) for ends in (cu_seq_lens_q, cu_seq_lens_k, cu_seq_lens_k)), strict=True):
            q, k, v = (row[:, :, slice(*ends)] for row, ends in zip(rows, each, strict=True))
            texts.append(_one(q, k, v, None, scaling, causal, reach, softcap))
        joined: torch.Tensor = torch.cat(texts, 2)[0].transpose(0, 1)
        output: torch.Tensor = joined.unflatten(0, (query.shape[0], -1)).transpose(1, 2)
        return output
    return _one(query, key, value, mask, scaling, causal, reach, softcap)


def _spans(ends: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(ends.tolist()[:-1], ends.tolist()[1:], strict=True))


def _one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    causal: bool,
    reach: int | None,
    softcap: float | None,
) -> torch.Tensor:
    queries, keys = query.shape[-2], key.shape[-2]
    places = torch.arange(keys - queries, keys, device=query.device)[:, None]
    others = torch.arange(keys, device=query.device)
    allowed = (places >= others) if causal else torch.ones_like(places >= others)
    if reach is not None:
        allowed = allowed & ((places - others).abs() <= reach)
    if mask is not None:
        assert mask.dim() == 2, "flash attention takes a padding mask"
        real = mask[:, -keys:].bool()
        allowed = allowed & real[:, None, None, :] & real[:, None, -queries:, None]
    scores = (query.float() @ key.float().transpose(-1, -2)) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
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
    """Put the stand-in where the families' modules import the real one from.

    Before the first model is hooked: patched code looks names up in a copy of its module's namespace.
    """
    registry = capabilities.attention_functions()
    if registry is not None:
        registry["flash_attention_2"] = interface
    families = {*HEADS, *(kind.family for kind in kinds().values() if kind.exists)}
    for family in families:
        vars(capabilities.modeling_module(family))["_flash_attention_forward"] = flash_attention_forward


def make(case: Case) -> Any:
    """A model in evaluation mode; with flash attention one that uses the stand-in."""
    return make_flash_model(case) if case.attention == "flash_attention_2" else make_model(case)


def make_flash_model(case: Case, **changes: Any) -> Any:
    """A model with flash attention: an eager one changed, since none can be made without the real package."""
    model = make_model(Case(case.kind, "eager", case.dtype), **changes)
    model.config._attn_implementation = "flash_attention_2"
    told = {"_attn_implementation": "flash_attention_2", "_use_flash_attention_2": True, "_use_sdpa": False}
    for part in model.modules():
        for name in told.keys() & vars(part).keys():
            setattr(part, name, told[name])
    classes: Any = capabilities.attention_classes(case.family)
    for module in model.modules():
        if classes and type(module) is classes["eager"]:
            module.__class__ = classes["flash_attention_2"]
            module._flash_attn_uses_top_left_mask = False
    return model
