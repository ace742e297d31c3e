"""Models to measure with: random weights from configurations, no download."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

SIZES = ("tiny", "gpt2", "pythia-410m", "llama-3.2-1b", "qwen3-0.6b")
"""Names for :func:`make`: 4 layers of width 64 with 16 tokens, GPT-2's default and Pythia-410m with 128 tokens; Llama
3.2 1B and Qwen3 0.6B with 4 layers, a small vocabulary and 128 tokens."""

_FEW_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.2-1b": (
        "llama",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        "qwen3",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
    ),
}


def make(size: str, attention: str) -> Any:
    """A causal language model in evaluation mode, the same weights at every call."""
    torch.manual_seed(0)
    if size == "pythia-410m":
        config = GPTNeoXConfig(
            vocab_size=50304,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=2048,
            rotary_pct=0.25,
            attn_implementation=attention,
        )
        return GPTNeoXForCausalLM(config).eval()
    if size in _FEW_LAYERS:
        family, sizes = _FEW_LAYERS[size]
        config = AutoConfig.for_model(family, num_hidden_layers=4, vocab_size=8192, **sizes)
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    shape = {"vocab_size": 512, "n_positions": 128, "n_embd": 64, "n_layer": 4, "n_head": 4} if size == "tiny" else {}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(attn_implementation=attention, **shape, **special)).eval()


def tokens(size: str, model: Any) -> torch.Tensor:
    """Token ids ``[1, pos]`` for a model of that size."""
    length = 16 if size == "tiny" else 128
    return torch.randint(1, model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
