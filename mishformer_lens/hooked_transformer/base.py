"""What the parts of the drop-in share."""

from typing import Any

import torch
from torch import nn

from mishformer_lens.hooked_transformer.components import Block, Embed, PosEmbed, RMSNorm, Unembed
from mishformer_lens.hooked_transformer.config import HookedTransformerConfig
from mishformer_lens.hooked_transformer.projections import device_of
from mishformer_lens.hooked_transformer.transformer_lens_compat import HookedRootModule
from mishformer_lens.instrumentation import Instrumentation


class HookedTransformerBase(HookedRootModule):
    """The attributes that every part of the drop-in finds on it.

    Attributes:
        hf_model: HuggingFace's model; it holds all the weights and does all the computation.
        instrumentation: the hook points on it.
        tokenizer: a copy of the tokenizer that was given, with padding side and special tokens set; or None.
        embed, pos_embed, ln_final, unembed: its parts; GPT-NeoX has no ``pos_embed``.
    """

    hf_model: Any
    instrumentation: Instrumentation
    tokenizer: Any
    embed: Embed
    pos_embed: PosEmbed
    ln_final: RMSNorm
    unembed: Unembed
    training: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See :class:`mishformer_lens.hooked_transformer.running.Running`."""
        raise NotImplementedError

    @property
    def cfg(self) -> HookedTransformerConfig:
        """The configuration under TransformerLens's field names."""
        raise NotImplementedError

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers, as many as the model has now."""
        raise NotImplementedError

    def _live_blocks(self) -> nn.Module:
        """HuggingFace's list of blocks."""
        return self.instrumentation.model.get_submodule(self.instrumentation.family.components["blocks"])

    def _n_layers(self) -> int:
        return len(self._live_blocks()._modules)

    def _input_device(self) -> torch.device:
        """Where tokens go: to the embedding, or to where its weights are fetched for a pass."""
        return device_of(self.embed.module)
