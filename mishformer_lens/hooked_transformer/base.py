"""What the parts of the drop-in share."""

from typing import Any

import torch

from mishformer_lens.hooked_transformer.components import Block, Embed, LayerNorm, PosEmbed, Unembed
from mishformer_lens.hooked_transformer.config import HookedTransformerConfig
from mishformer_lens.hooked_transformer.transformer_lens_compat import HookedRootModule
from mishformer_lens.instrumentation import Instrumentation


class HookedTransformerBase(HookedRootModule):
    """The attributes that every part of the drop-in finds on it.

    Attributes:
        hf_model: HuggingFace's model; it holds all the weights and does all the computation.
        instrumentation: the hook points on it.
        cfg: its configuration under TransformerLens's field names.
        tokenizer: a copy of the tokenizer that was given, with padding side and special tokens set; or None.
        embed, pos_embed, blocks, ln_final, unembed: its parts; GPT-NeoX has no ``pos_embed``.
    """

    hf_model: Any
    instrumentation: Instrumentation
    cfg: HookedTransformerConfig
    tokenizer: Any
    embed: Embed
    pos_embed: PosEmbed
    blocks: tuple[Block, ...]
    ln_final: LayerNorm
    unembed: Unembed
    training: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See :class:`mishformer_lens.hooked_transformer.running.Running`."""
        raise NotImplementedError

    def _input_device(self) -> torch.device:
        device: torch.device = self.embed.W_E.device
        return device
