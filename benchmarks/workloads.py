"""The work that is measured, for a plain and for a hooked model."""

from collections.abc import Callable
from typing import Any

import torch

from mishformer_lens import Instrumentation

Work = Callable[[], object]


def forward(model: Any, tokens: torch.Tensor) -> Work:
    """One forward pass without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return model(tokens, use_cache=False)

    return run


def forward_with_cache(model: Any, tokens: torch.Tensor, hooked: Instrumentation, names: list[str] | None) -> Work:
    """One forward pass that keeps the activations called ``names``, or all that need no flag."""

    def run() -> object:
        with torch.inference_mode(), hooked.caching(names) as cache:
            model(tokens, use_cache=False)
        return cache

    return run


def generation(model: Any, tokens: torch.Tensor, count: int) -> Work:
    """``count`` tokens, greedily, with a key-value cache."""
    prompt = tokens[:, :8]
    mask = torch.ones_like(prompt)
    end = {"min_new_tokens": count, "max_new_tokens": count, "pad_token_id": 0}

    def run() -> object:
        return model.generate(prompt, attention_mask=mask, do_sample=False, **end)

    return run


def training_step(model: Any, tokens: torch.Tensor) -> Work:
    """Loss and gradients of all parameters."""

    def run() -> object:
        model.zero_grad()
        return model(tokens, labels=tokens, use_cache=False).loss.backward()

    return run
