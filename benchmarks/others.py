"""The same work by other libraries, where they are installed: TransformerLens's own classes, and nnsight."""

import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from packaging.version import Version

from benchmarks.workloads import Work
from mishformer_lens.checkpoints import shipped_checkpoint


def others(model: Any, tokens: torch.Tensor) -> Iterator[tuple[str, Work, Work]]:
    """For each other library: its name, an idle forward pass, and one that caches everything.

    TransformerLens before 4.0 is measured with its ``HookedTransformer``, from 4.0 on with its ``TransformerBridge``.
    """
    if Version(importlib.metadata.version("transformer-lens")) < Version("4.0"):
        yield _hooked_transformer(model, tokens)
    else:
        yield _transformer_bridge(model, tokens)
    if importlib.util.find_spec("nnsight") is not None:
        yield _nnsight(model, tokens)


def _works(name: str, model: Any, tokens: torch.Tensor) -> tuple[str, Work, Work]:
    def idle() -> object:
        with torch.inference_mode():
            return model(tokens)

    def everything() -> object:
        with torch.inference_mode():
            return model.run_with_cache(tokens)

    return name, idle, everything


def _hooked_transformer(model: Any, tokens: torch.Tensor) -> tuple[str, Work, Work]:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = model.config
    shape = HookedTransformerConfig(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_ctx=config.max_position_embeddings,
        d_head=config.hidden_size // config.num_attention_heads,
        n_heads=config.num_attention_heads,
        d_mlp=4 * config.hidden_size,
        act_fn="gelu_new",
        d_vocab=config.vocab_size,
        normalization_type="LN",
        seed=0,
        device="cpu",
    )
    return _works("TransformerLens HookedTransformer", HookedTransformer(shape).eval(), tokens)


def _transformer_bridge(model: Any, tokens: torch.Tensor) -> tuple[str, Work, Work]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped_checkpoint())
    model.config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as folder:
        # It looks the architecture up by a name, and takes a folder with a configuration for one.
        model.config.save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=tokenizer, device="cpu")
    return _works("TransformerLens TransformerBridge", bridge.eval(), tokens)


def _nnsight(model: Any, tokens: torch.Tensor) -> tuple[str, Work, Work]:
    from nnsight import NNsight, save

    traced = NNsight(model)
    blocks = traced.transformer.h if model.config.model_type == "gpt2" else traced.gpt_neox.layers

    # nnsight runs what stands in the context by itself, from its source: nothing may return from there.

    @torch.inference_mode()
    def idle() -> object:
        with traced.trace(tokens):
            output = save(traced.output)
        return output  # noqa: RET504 - it is bound by nnsight when the context ends

    @torch.inference_mode()
    def everything() -> object:
        with traced.trace(tokens):
            outputs = save([])
            for block in blocks:
                outputs.append(block.output)
        return outputs

    return "nnsight (block outputs only)", idle, everything
