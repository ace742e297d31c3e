"""Keys and values of earlier tokens: TransformerLens's caches and HuggingFace's."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import DynamicCache

from mishformer_lens.errors import KeyValueCacheError
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache


class PastKeyValues:
    """One cache that the caller gave, of either kind, during one forward pass.

    TransformerLens's holds ``[batch, pos, head_index, d_head]``, HuggingFace's ``[batch, head_index, pos, d_head]``.
    Keys and values have their own number of heads. The keys that it holds are as HuggingFace keeps them: rotated
    already, unlike in TransformerLens.
    """

    def __init__(self, given: Any) -> None:
        if not isinstance(given, KeyValueCache | DynamicCache):
            raise KeyValueCacheError(
                f"past_kv_cache is a {type(given).__name__}. Needed is TransformerLens's {KeyValueCache.__name__}."
                "init_cache(model.cfg, model.cfg.device, batch_size), or transformers' DynamicCache()."
            )
        self.given = given
        self.is_transformer_lens = isinstance(given, KeyValueCache)

    @property
    def length(self) -> int:
        """How many positions it holds."""
        if self.is_transformer_lens:
            return int(self.given.entries[0].past_keys.shape[1])
        return int(self.given.get_seq_length())

    @property
    def frozen(self) -> bool:
        """Whether nothing is to be added. HuggingFace's caches cannot be frozen."""
        return self.is_transformer_lens and bool(self.given.frozen)

    def extend_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """The attention mask ``[batch, past + pos]``, for that of the new tokens ``[batch, pos]``.

        HuggingFace's caches keep no mask: one for the new tokens alone gets ones before it.
        """
        if self.is_transformer_lens:
            # Not all of it: where input_to_embed() came first, the new tokens' mask is in it already.
            previous = self.given.previous_attention_mask[:, : self.length]
            return torch.cat([previous.to(mask.device), mask], dim=-1)
        return torch.cat([torch.ones_like(mask[:, :1]).expand(-1, self.length), mask], dim=-1)

    def for_hugging_face(self, by_place: bool, kept: range) -> Any | None:
        """The cache to run HuggingFace's model with; None while there is nothing in it that it would know.

        Where a model makes its own, that may keep no more keys than a window shows. This keeps all of them.

        Args:
            by_place: whether the model pairs the blocks that it runs with the cache's entries one by one.
            kept: the layers that run.
        """
        if not self.length and by_place:
            # These ask a cache's first layer for its length.
            return None
        if by_place and self.frozen and kept:
            entries = [self.given.entries[layer] for layer in kept]
            return tuple((each.past_keys.transpose(1, 2), each.past_values.transpose(1, 2)) for each in entries)
        if not self.is_transformer_lens:
            return self.given
        filled = DynamicCache()
        for layer, entry in enumerate(self.given.entries):
            filled.update(entry.past_keys.transpose(1, 2), entry.past_values.transpose(1, 2), layer)
        return filled

    def remember_mask(self, mask: torch.Tensor | None) -> None:
        """Add the new tokens' mask ``[batch, pos]`` to TransformerLens's cache, once and unless it is frozen."""
        if not self.is_transformer_lens or self.frozen or mask is None:
            return
        if self.given.previous_attention_mask.shape[1] == self.length:
            self.given.append_attention_mask(mask)

    def take(self, returned: Any, mask: torch.Tensor | None) -> None:
        """Keep what HuggingFace's model returned, and the new tokens' mask, unless the cache is frozen."""
        if returned is self.given or self.frozen:
            return
        past = self.length
        self.remember_mask(mask)
        for layer, (keys, values) in enumerate(_layers(returned)):
            if self.is_transformer_lens:
                self.given.entries[layer].append(
                    keys[:, :, past:].transpose(1, 2).detach(), values[:, :, past:].transpose(1, 2).detach()
                )
            else:
                self.given.update(keys[:, :, past:], values[:, :, past:], layer)


def _layers(returned: Iterable[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    # Tuples of tensors and caches alike give key and value first, for each layer.
    for layer in returned:
        yield layer[0], layer[1]


def positions_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """The position ``[batch, pos]`` of each token, counted from the first attended one; 0 before it."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
