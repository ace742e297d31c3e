"""The forward pass: HuggingFace's own, under TransformerLens's arguments."""

# ruff: noqa: A002 - the arguments' names are TransformerLens's

import contextlib
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import nn

from mishformer_lens.errors import ForwardArgumentsError, KeyValueCacheError
from mishformer_lens.hooked_transformer.families import drop_in_of
from mishformer_lens.hooked_transformer.key_values import PastKeyValues, positions_of
from mishformer_lens.hooked_transformer.starting import has_cache_of_its_own, start_at_place, tells_layers_apart
from mishformer_lens.hooked_transformer.tokens import USE_DEFAULT_VALUE, PaddingSide, Tokens, is_text
from mishformer_lens.hooked_transformer.transformer_lens_compat import utils
from mishformer_lens.partial import Stopped, stop_before

# What HuggingFace's losses leave out.
_IGNORED: Final = -100

ReturnType = Literal["logits", "loss", "both"] | None


class Output(NamedTuple):
    """Logits ``[batch, pos, d_vocab]`` and loss, what ``return_type="both"`` gives."""

    logits: torch.Tensor
    loss: torch.Tensor


class _Inputs(NamedTuple):
    """What HuggingFace's model is called with."""

    tokens: torch.Tensor | None  # [batch, pos]
    embeddings: torch.Tensor | None  # [batch, pos, d_model]
    own_mask: torch.Tensor | None  # [batch, pos], of these tokens
    mask: torch.Tensor | None  # [batch, past + pos]
    labels: torch.Tensor | None = None  # [batch, pos]
    kept: range = range(0)  # the layers that run


class Running(Tokens):
    """``forward`` and what belongs to it.

    ``model(tokens)`` is ``hf_model(tokens)`` and ``model(tokens, return_type="loss")`` is
    ``hf_model(tokens, labels=tokens).loss``, bit by bit: HuggingFace's model is called with nothing else, so that its
    configuration decides, for example, whether keys and values are cached meanwhile. Where there is a mask, under left
    padding or with ``attention_mask`` or ``past_kv_cache``, it is called with the mask and the positions that follow
    from it, and predictions from or of padding are left out of ``labels``.
    """

    def forward(
        self,
        input: str | list[str] | torch.Tensor,
        return_type: ReturnType = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        start_at_layer: int | None = None,
        tokens: torch.Tensor | None = None,
        shortformer_pos_embed: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: Any | None = None,
    ) -> Any:
        """Run HuggingFace's model.

        Args:
            input: a string, strings, tokens ``[batch, pos]`` or ``[pos]``, token embeddings ``[batch, pos, d_model]``,
                or with ``start_at_layer`` the residual stream before that layer.
            return_type: ``logits`` ``[batch, pos, d_vocab]``; ``loss``, the mean cross-entropy of the next token in
                nats, computed by HuggingFace's model; ``both``; or None, to run for the hooks' sake.
            loss_per_token: the loss of each prediction, ``[batch, pos - 1]``; :meth:`loss_fn` computes it.
            prepend_bos, padding_side: override the defaults for text.
            start_at_layer: begin with this layer; negative numbers count from the end. The embedding and the layers
                before it do not run and their hooks do not fire.
            tokens: ``[batch, pos]``, for the loss where ``input`` has none.
            shortformer_pos_embed: must be None; no family has it.
            attention_mask: 1 for tokens, 0 for padding, ``[batch, pos]``; with ``start_at_layer`` and a cache also
                that of all positions, ``[batch, past + pos]``, as :meth:`input_to_embed` returns it. By default what is
                not padding under left padding or with a cache, and none otherwise, as in TransformerLens.
            stop_at_layer: return the residual stream before this layer, ``[batch, pos, d_model]``; it and what comes
                after do not run.
            past_kv_cache: TransformerLens's key-value cache, or transformers' ``DynamicCache``; new keys and values
                are added to it.

        Raises:
            TokenizerError: text without a tokenizer, or tokens out of range.
            ForwardArgumentsError: arguments that do not go together.
        """
        if shortformer_pos_embed is not None:
            raise ForwardArgumentsError(
                "shortformer_pos_embed is given, and the families that this serves have no such embedding."
            )
        if return_type not in ("logits", "loss", "both", None):
            raise ForwardArgumentsError(f"return_type is {return_type!r}; it must be 'logits', 'loss', 'both' or None.")
        n_layers = self._n_layers()
        layers = range(n_layers)[start_at_layer:stop_at_layer]
        if start_at_layer is not None and stop_at_layer is not None and not layers:
            return input
        past = None if past_kv_cache is None else PastKeyValues(past_kv_cache)
        if past is not None and not past.frozen and (layers.start > 0 or stop_at_layer is not None):
            raise ForwardArgumentsError(
                "start_at_layer or stop_at_layer with past_kv_cache: HuggingFace's models fill the cache of all layers "
                "together. Freeze the cache, past_kv_cache.freeze(), to use what it holds, or leave one of the two out."
            )
        with self._defaults(prepend_bos, padding_side):
            inputs = self._inputs(input, prepend_bos, attention_mask, past, start_at_layer is not None)
        wants_loss = return_type in ("loss", "both") and stop_at_layer is None
        tokens = self._tokens_for_loss(inputs, tokens, str(return_type)) if wants_loss else None
        if tokens is not None and not loss_per_token and self._loss_is_hugging_face_s():
            inputs = inputs._replace(labels=_labels(tokens, inputs.own_mask))
        inputs = inputs._replace(kept=range(layers.start, n_layers))
        if not inputs.kept:
            # Nothing attends any more.
            inputs = inputs._replace(mask=None)
        with contextlib.ExitStack() as context:
            if stop_at_layer is not None:
                context.enter_context(stop_before(self.instrumentation.model, self._module_at(stop_at_layer)))
            if start_at_layer is not None:
                context.enter_context(start_at_place(self.instrumentation, layers.start, inputs.embeddings))
            try:
                logits, loss = self._run(inputs, past)
            except Stopped as stopped:
                return stopped.residual
        if return_type is None:
            return None
        if tokens is None:
            return logits
        if loss is None:
            loss = self.loss_fn(logits, tokens, inputs.own_mask, loss_per_token)
        return loss if return_type == "loss" else Output(logits, loss)

    def _inputs(
        self,
        input: Any,
        prepend_bos: bool | None,
        attention_mask: torch.Tensor | None,
        past: PastKeyValues | None,
        is_residual: bool,
    ) -> _Inputs:
        tokens: torch.Tensor | None
        tokens, embeddings = None, None
        if is_text(input):
            tokens = self.to_tokens(input)
        elif not isinstance(input, torch.Tensor):
            raise ForwardArgumentsError(
                f"input is a {type(input).__name__}; it must be a string, a list of strings or a tensor."
            )
        elif input.is_floating_point():
            embeddings = input
        elif is_residual:
            raise ForwardArgumentsError("start_at_layer needs the residual stream [batch, pos, d_model], not tokens.")
        else:
            tokens = input
        device = self._input_device()
        if tokens is not None:
            tokens = (tokens[None] if tokens.dim() == 1 else tokens).to(device)
            self._check_in_vocabulary(tokens)
            if attention_mask is None and (past is not None or self._pads_left()):
                attention_mask = self._attention_mask(tokens, prepend_bos)
        if embeddings is not None and attention_mask is None and past is not None:
            attention_mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        if attention_mask is None:
            return _Inputs(tokens, embeddings, None, None)
        shape = (embeddings if tokens is None else tokens).shape[:2]  # type: ignore[union-attr] # it is one of the two
        attention_mask = attention_mask.to(device)
        if past is not None and is_residual and attention_mask.shape == (shape[0], past.length + shape[1]):
            return _Inputs(tokens, embeddings, attention_mask[:, past.length :], attention_mask)
        if attention_mask.shape != shape:
            raise ForwardArgumentsError(
                f"attention_mask has shape {list(attention_mask.shape)}; it must be {list(shape)}, as the input's "
                "batch and positions are. Of a cache's positions the cache itself knows the mask."
            )
        whole = attention_mask if past is None else past.extend_mask(attention_mask)
        return _Inputs(tokens, embeddings, attention_mask, whole)

    def _pads_left(self) -> bool:
        return self.tokenizer is not None and self.tokenizer.padding_side == "left"

    def _module_at(self, layer: int) -> nn.Module:
        """The HuggingFace module that takes the residual stream before ``layer``."""
        base, components = self.instrumentation.model, self.instrumentation.family.components
        blocks = list(base.get_submodule(components["blocks"]).children())
        modules = [*blocks, base.get_submodule(components["ln_final"])]
        return modules[range(len(blocks))[:layer].stop]

    def _run(self, inputs: _Inputs, past: PastKeyValues | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """HuggingFace's logits, and its loss where there are labels."""
        arguments: dict[str, Any] = {"return_dict": True}
        if inputs.tokens is None:
            arguments["inputs_embeds"] = inputs.embeddings
        else:
            arguments["input_ids"] = inputs.tokens
        if inputs.labels is not None:
            arguments["labels"] = inputs.labels
        if inputs.mask is not None:
            positions = positions_of(inputs.mask)
            arguments["attention_mask"] = inputs.mask
            if not drop_in_of(self.instrumentation.family).counts_positions:
                arguments["position_ids"] = positions[:, past.length if past else 0 :]
        variant = self.instrumentation.variant
        if not inputs.kept or (past is None and inputs.kept.start > 0 and tells_layers_apart(self.instrumentation)):
            # Keys and values of no layer, or of some where layers are told apart: some releases do not expect that.
            arguments["use_cache"] = False
        elif past is not None:
            arguments["use_cache"] = True
            self._refuse_windows(past, inputs)
            arguments[variant.cache_argument] = past.for_hugging_face(variant.cache_by_place, inputs.kept)
        output = self.hf_model(**arguments)
        if past is not None and inputs.kept:
            past.take(output[variant.cache_argument], inputs.own_mask)
        return output.logits, None if inputs.labels is None else output.loss

    def _refuse_windows(self, past: PastKeyValues, inputs: _Inputs) -> None:
        """Refuse a cache of more keys than a layer with a window sees, where models count on a cache of their own."""
        if not has_cache_of_its_own(self.instrumentation):
            return
        windows = [block.attn.window for block in self.blocks]
        smallest = min((window for window in windows if window is not None), default=None)
        given = inputs.embeddings if inputs.tokens is None else inputs.tokens
        n_keys = past.length + (0 if given is None else given.shape[1])
        if smallest is not None and n_keys > smallest:
            raise KeyValueCacheError(
                f"past_kv_cache would have {n_keys} keys, and some layers see {smallest}: in this release of "
                "transformers these models tell them right in a cache of their own only, which generate() uses. Pass "
                "all tokens at once, or upgrade transformers to 4.53 or later."
            )

    def _tokens_for_loss(self, inputs: _Inputs, tokens: torch.Tensor | None, return_type: str) -> torch.Tensor:
        tokens = tokens if inputs.tokens is None else inputs.tokens
        if tokens is None:
            raise ForwardArgumentsError(f"return_type={return_type!r} needs tokens=, since the input is no tokens.")
        return (tokens[None] if tokens.dim() == 1 else tokens).to(self._input_device())

    def _loss_is_hugging_face_s(self) -> bool:
        """Whether nobody put a :meth:`loss_fn` of their own in the place of this one."""
        return "loss_fn" not in vars(self) and type(self).loss_fn is Running.loss_fn

    def loss_fn(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        per_token: bool = False,
    ) -> torch.Tensor:
        """The cross-entropy of each next token, in nats: the mean, or ``[batch, pos - 1]``.

        The forward pass's mean is HuggingFace's own and may differ from this in its last bits. A ``loss_fn`` that is
        overridden is used there instead.

        Args:
            logits: ``[batch, pos, d_vocab]``.
            tokens: ``[batch, pos]``.
            attention_mask: ``[batch, pos]``; predictions from or of padding count nothing.
        """
        mask = None if attention_mask is None else attention_mask.to(logits.device)
        loss: torch.Tensor = utils.lm_cross_entropy_loss(logits, tokens.to(logits.device), mask, per_token)
        return loss

    @contextlib.contextmanager
    def _embedding_only(self) -> Iterator[None]:
        with stop_before(self.instrumentation.model, self._module_at(0)):
            yield

    def input_to_embed(
        self,
        input: str | list[str] | torch.Tensor,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        attention_mask: torch.Tensor | None = None,
        past_kv_cache: Any | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, torch.Tensor | None]:
        """The residual stream before the first layer, the tokens, None, and the mask ``[batch, past + pos]``.

        As in TransformerLens, a key-value cache that is not frozen takes the mask; ``forward`` with ``start_at_layer``
        and this mask adds keys and values to it.
        """
        past = None if past_kv_cache is None else PastKeyValues(past_kv_cache)
        with self._defaults(prepend_bos, padding_side):
            inputs = self._inputs(input, prepend_bos, attention_mask, past, is_residual=False)
        inputs = inputs._replace(kept=range(self._n_layers()))
        with self._embedding_only():
            try:
                self._run(inputs, past)
            except Stopped as stopped:
                if past is not None:
                    past.remember_mask(inputs.own_mask)
                return stopped.residual, inputs.tokens, None, inputs.mask
        raise AssertionError("the first layer did not run")

    def get_pos_offset(self, past_kv_cache: Any | None, batch_size: int) -> int:
        """How many positions a key-value cache holds; 0 without one.

        Raises:
            ForwardArgumentsError: TransformerLens's cache is for another batch size.
        """
        if past_kv_cache is None:
            return 0
        past = PastKeyValues(past_kv_cache)
        if past.is_transformer_lens and past_kv_cache.entries[0].past_keys.shape[0] != batch_size:
            raise ForwardArgumentsError(
                f"past_kv_cache is for {past_kv_cache.entries[0].past_keys.shape[0]} sequences, not for {batch_size}."
            )
        return past.length

    def get_residual(
        self,
        embed: torch.Tensor,
        pos_offset: int,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,  # noqa: ARG002 - TransformerLens's signature
        attention_mask: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,  # noqa: ARG002
        return_shortformer_pos_embed: bool = True,
        device: torch.device | None = None,  # noqa: ARG002
    ) -> Any:
        """The residual stream before the first layer, for token embeddings ``[batch, pos, d_model]``. No hook fires.

        With ``return_shortformer_pos_embed`` paired with None, as in TransformerLens.
        """
        residual = embed
        if self.cfg.positional_embedding_type == "standard":
            residual = embed + self.pos_embed(embed[..., 0], pos_offset, attention_mask)
        return (residual, None) if return_shortformer_pos_embed else residual


def _labels(tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """HuggingFace's ``labels`` for ``tokens``: without those that padding predicts, or that are padding."""
    if mask is None:
        return tokens
    counted = mask.bool()
    predicted = counted & counted.roll(1, dims=-1)
    return tokens.masked_fill(~predicted, _IGNORED)
