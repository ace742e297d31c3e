"""Strings, tokens and back, by the BOS and padding rules of TransformerLens 2.15.4."""

# ruff: noqa: A002 - the arguments' names are TransformerLens's

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch

from mishformer_lens.errors import TokenizerError, TokensOutOfRangeError
from mishformer_lens.hooked_transformer.base import HookedTransformerBase
from mishformer_lens.hooked_transformer.projections import vocabulary_of
from mishformer_lens.hooked_transformer.transformer_lens_compat import utils

USE_DEFAULT_VALUE = utils.USE_DEFAULT_VALUE
PaddingSide = Literal["left", "right"]

_FALLBACK_TOKEN = "<|endoftext|>"


class Tokens(HookedTransformerBase):
    """Methods that map between text and tokens.

    ``prepend_bos`` and ``padding_side`` override ``cfg.default_prepend_bos`` and ``tokenizer.padding_side`` for one
    call; None leaves them.
    """

    def set_tokenizer(self, tokenizer: Any, default_padding_side: PaddingSide = "right") -> None:
        """Use a copy of ``tokenizer`` from now on.

        A missing end-of-text token becomes ``<|endoftext|>``, missing padding and beginning-of-text tokens become the
        end-of-text token, as in TransformerLens.

        Raises:
            TokenizerError: ``default_padding_side`` is neither ``left`` nor ``right``, or this is no tokenizer.
        """
        if default_padding_side not in ("left", "right"):
            raise TokenizerError(f"default_padding_side is {default_padding_side!r}; it must be 'left' or 'right'.")
        if not callable(tokenizer):
            raise TokenizerError(
                f"{type(tokenizer).__name__} is not a tokenizer. Pass AutoTokenizer.from_pretrained(...)."
            )
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.padding_side = default_padding_side
        self.cfg.tokenizer_prepends_bos = len(tokenizer.encode("")) > 0
        if tokenizer.eos_token is None:
            tokenizer.eos_token = _FALLBACK_TOKEN
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.bos_token is None:
            tokenizer.bos_token = tokenizer.eos_token
        self.tokenizer = tokenizer

    def _require_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise TokenizerError(
                "text needs a tokenizer, and this model has none. Pass tokens, or give it one: "
                "HookedTransformer(hf_model, tokenizer) or model.set_tokenizer(tokenizer)."
            )
        return self.tokenizer

    @contextlib.contextmanager
    def _defaults(self, prepend_bos: bool | None, padding_side: PaddingSide | None) -> Iterator[None]:
        if prepend_bos not in (None, True, False) or padding_side not in (None, "left", "right"):
            raise TokenizerError(
                f"prepend_bos is {prepend_bos!r} and padding_side is {padding_side!r}; they must be True, False or "
                "None, and 'left', 'right' or None."
            )
        if prepend_bos is None and padding_side is None:
            yield  # nothing to override
            return
        with utils.LocallyOverridenDefaults(self, prepend_bos=prepend_bos, padding_side=padding_side):
            yield

    def to_tokens(
        self,
        input: str | list[str],
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> torch.Tensor:
        """Tokens ``[batch, pos]`` of a string or of several, padded to the longest.

        Args:
            truncate: cut what is longer than ``cfg.n_ctx`` tokens.

        Raises:
            TokenizerError: the model has no tokenizer.
        """
        tokenizer = self._require_tokenizer()
        text = input
        with self._defaults(prepend_bos, padding_side):
            if self.cfg.default_prepend_bos and not self.cfg.tokenizer_prepends_bos:
                bos = tokenizer.bos_token
                text = bos + input if isinstance(input, str) else [bos + each for each in input]
            tokens: torch.Tensor = tokenizer(
                text,
                return_tensors="pt",
                padding=True,
                truncation=truncate,
                max_length=self.cfg.n_ctx if truncate else None,
            )["input_ids"]
            tokens = tokens.long()  # an empty text gives floats
            if not self.cfg.default_prepend_bos and self.cfg.tokenizer_prepends_bos:
                tokens = utils.get_tokens_with_bos_removed(tokenizer, tokens)
        return tokens.to(self.cfg.device) if move_to_device else tokens

    def to_string(self, tokens: Any) -> str | list[str]:
        """The text of tokens ``[pos]`` or of one token; the texts, in a list, of tokens ``[batch, pos]``.

        Raises:
            TokenizerError: there is no tokenizer, or ``tokens`` have more than two axes.
        """
        tokenizer = self._require_tokenizer()
        if not isinstance(tokens, torch.Tensor):
            tokens = torch.tensor(tokens)
        if tokens.dim() == 2:
            return [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in tokens.tolist()]
        if tokens.dim() > 2:
            raise TokenizerError(f"tokens have shape {list(tokens.shape)}; they must be [pos] or [batch, pos].")
        text: str = tokenizer.decode(tokens.reshape(-1).tolist(), clean_up_tokenization_spaces=False)
        return text

    def to_str_tokens(
        self,
        input: Any,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
    ) -> Any:
        """Each token as a string, of a text or of tokens ``[pos]`` or ``[1, pos]``; a list of such lists for a list.

        Raises:
            TokenizerError: there is no tokenizer, or the input is of another type or shape.
        """
        tokenizer = self._require_tokenizer()
        if isinstance(input, list):
            return [self.to_str_tokens(each, prepend_bos, padding_side) for each in input]
        if isinstance(input, str):
            tokens = self.to_tokens(input, prepend_bos=prepend_bos, padding_side=padding_side)[0]
        elif isinstance(input, torch.Tensor | np.ndarray):
            tokens = torch.as_tensor(input).squeeze()
            tokens = tokens.unsqueeze(0) if tokens.dim() == 0 else tokens
        else:
            raise TokenizerError(f"{type(input).__name__} given; needed is a string, tokens, or a list of those.")
        if tokens.dim() != 1:
            raise TokenizerError(f"tokens have shape {list(tokens.shape)}; they must be [pos] or [1, pos].")
        return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in tokens.tolist()]

    def to_single_token(self, string: str) -> int:
        """The one token of ``string``.

        Raises:
            TokenizerError: it has more tokens than one, or there is no tokenizer.
        """
        tokens = self.to_tokens(string, prepend_bos=False).squeeze()
        if tokens.dim():
            raise TokenizerError(
                f"{string!r} is {tokens.numel()} tokens, {self.to_str_tokens(string, prepend_bos=False)}, and one "
                "is needed. Mind the leading space."
            )
        return int(tokens.item())

    def to_single_str_token(self, int_token: int) -> str:
        """The string of one token."""
        if not isinstance(int_token, int):
            raise TokenizerError(f"{int_token!r} is not an int. For a tensor use to_str_tokens.")
        (text,) = self.to_str_tokens(torch.tensor([int_token]))
        return str(text)

    def get_token_position(
        self,
        single_token: str | int | torch.Tensor,
        input: str | torch.Tensor,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
    ) -> int:
        """Where a token is in a text or in tokens ``[pos]`` or ``[1, pos]``: the first or the last place.

        Raises:
            TokenizerError: it is not there, the tokens have another shape, or ``mode`` is neither of the two.
        """
        if mode not in ("first", "last"):
            raise TokenizerError(f"mode is {mode!r}; it must be 'first' or 'last'.")
        tokens = self.to_tokens(input, prepend_bos, padding_side) if isinstance(input, str) else input
        if tokens.dim() == 2 and tokens.shape[0] != 1:
            raise TokenizerError(f"tokens have shape {list(tokens.shape)}; they must be [pos] or [1, pos].")
        wanted = self.to_single_token(single_token) if isinstance(single_token, str) else int(single_token)
        places = (tokens.reshape(-1) == wanted).nonzero().flatten().tolist()
        if not places:
            raise TokenizerError(f"token {wanted} does not occur in the {tokens.numel()} tokens given.")
        return int(places[0] if mode == "first" else places[-1])

    def tokens_to_residual_directions(self, tokens: str | int | torch.Tensor) -> torch.Tensor:
        """The columns of ``W_U`` for tokens ``[...]``: ``[..., d_model]``; for one token ``[d_model]``."""
        if isinstance(tokens, torch.Tensor) and tokens.numel() > 1:
            return self.unembed.W_U.T[tokens]
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        return self.unembed.W_U[:, int(tokens)]

    def _check_in_vocabulary(self, tokens: torch.Tensor) -> None:
        d_vocab = vocabulary_of(self.embed.module)
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= d_vocab):
            raise TokensOutOfRangeError(
                f"tokens run from {int(tokens.min())} to {int(tokens.max())}, and this model knows 0 to {d_vocab - 1}. "
                "Is the tokenizer this model's own?"
            )

    def _attention_mask(self, tokens: torch.Tensor, prepend_bos: bool | None) -> torch.Tensor:
        """Which tokens are no padding, ``[batch, pos]``. Without a tokenizer all of them."""
        prepend = self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos
        mask: torch.Tensor = utils.get_attention_mask(self.tokenizer, tokens, prepend)
        return mask


def is_text(input: object) -> bool:
    """Whether ``input`` is a string or several."""
    return isinstance(input, str) or (
        isinstance(input, Sequence) and bool(input) and all(isinstance(each, str) for each in input)
    )
