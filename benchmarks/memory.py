"""Memory of hooking and of a full cache, in bytes of tensors."""

from typing import Any

import psutil
import torch

import mishformer_lens


def weights_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers."""
    return sum(each.nbytes for each in (*model.parameters(), *model.buffers()))


def hooking_bytes(model: Any) -> int:
    """How much the process grew by when the model was hooked; whole pages, so small models show nothing or a page."""
    process = psutil.Process()
    before = process.memory_info().rss
    mishformer_lens.instrument(model)
    return int(process.memory_info().rss - before)


def cache_overhead(model: Any, tokens: torch.Tensor) -> float:
    """Bytes of distinct storages that a full cache keeps alive, divided by the bytes of what is cached."""
    hooked = mishformer_lens.instrument(model)
    with torch.inference_mode(), hooked.caching() as cache:
        model(tokens, use_cache=False)
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in cache.values()}
    return sum(storages.values()) / sum(value.nbytes for value in cache.values())
