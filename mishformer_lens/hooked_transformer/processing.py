"""Weight processing on HuggingFace's own weights, and back; TransformerLens's state dictionaries."""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mishformer_lens.errors import ProcessingError
from mishformer_lens.hooked_transformer import folding
from mishformer_lens.hooked_transformer.components import View, clip_of
from mishformer_lens.hooked_transformer.folding import StateDict
from mishformer_lens.hooked_transformer.projections import lacks_bias
from mishformer_lens.hooked_transformer.weights import Weights
from mishformer_lens.suggestions import did_you_mean

logger = logging.getLogger("mishformer_lens")


@dataclasses.dataclass
class _Original:
    """What a model had before it was processed."""

    values: dict[str, torch.Tensor]  # HuggingFace's parameters, by name
    without_bias: list[Any]
    tied: bool
    normalization_type: str | None


class Processing(Weights):
    """``process_weights_`` and ``undo_processing``; state dictionaries in TransformerLens's format."""

    _original: _Original | None = None

    def to_transformer_lens_state_dict(self) -> StateDict:
        """The weights in the format of TransformerLens 2.x's ``state_dict()``: detached views, nothing is copied.

        Its buffers (masks, rotary tables) are not in it: load it with ``strict=False``. Where norms were folded
        (``cfg.normalization_type`` is ``LNPre`` or ``RMSPre``) there are no entries for them, as there. Numbers that
        HuggingFace keeps otherwise, as Gemma's gains less one and its embedding before its factor, are copies.
        """
        folded = self._is_folded()
        return {
            name: value.detach()
            for name, value in self.tl_parameters().items()
            if not (folded and name.rpartition(".")[0].endswith(_FOLDED_NORMS))
        }

    def _is_folded(self) -> bool:
        return str(self.cfg.normalization_type).endswith("Pre")

    def fill_missing_keys(self, state_dict: Mapping[str, torch.Tensor]) -> StateDict:
        """``state_dict``, in TransformerLens's format, with this model's own weights where it has none."""
        return self.to_transformer_lens_state_dict() | dict(state_dict)

    def load_and_process_state_dict(
        self,
        state_dict: Mapping[str, torch.Tensor],
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
    ) -> None:
        """Put weights in TransformerLens's format into HuggingFace's parameters, processed on the way.

        See :meth:`process_weights_` for the arguments; the defaults are TransformerLens's. Names that are missing keep
        their weights. :meth:`undo_processing` brings back what was there before the first call.

        Raises:
            ProcessingError: a name that this model does not have.
        """
        own = self.to_transformer_lens_state_dict()
        known = dict.fromkeys(own)
        # TransformerLens has the underscore in some models whose keys and values have as many heads as queries, too.
        spelled = {name.replace(".attn.", ".attn._"): name for name in own}
        state_dict = {spelled.get(name, name): value for name, value in state_dict.items()}
        if self.cfg.gated_mlp:
            known |= dict.fromkeys(f"{block.mlp.name}.{weight}" for block in self.blocks for weight in _OF_OURS)
        unknown = [name for name in state_dict if name not in known and not name.endswith(_BUFFERS)]
        if unknown:
            raise ProcessingError(
                f"the state dict has {unknown[0]!r}, which this model does not have. {did_you_mean(unknown[0], known)}"
                "Needed are TransformerLens's names, as in to_transformer_lens_state_dict()."
            )
        # Copies: they may be views of the very parameters that are about to be written.
        given = {name: value.detach().clone() for name, value in state_dict.items() if name in known}
        with contextlib.ExitStack() as on_error:
            if self._original is None:
                self._remember()
                on_error.callback(self.undo_processing)
            values = self.to_transformer_lens_state_dict() | given
            if fold_ln and not self._is_folded():
                centring = self._centres()
                values = self.fold_layer_norm(values, fold_biases=centring, center_weights=centring)
            if center_writing_weights and self._can_center_writing_weights():
                values = self.center_writing_weights(values)
            if center_unembed and self._can_center_unembed():
                values = self.center_unembed(values)
            if fold_value_biases:
                values = self.fold_value_biases(values)
            if refactor_factored_attn_matrices:
                values = self.refactor_factored_attn_matrices(values)
            self._write(values)
            on_error.pop_all()
        if fold_ln:
            self.cfg.normalization_type = "LNPre" if self._centres() else "RMSPre"

    def _centres(self) -> bool:
        """Whether the norms before attention, MLP and unembedding take the mean off."""
        return self.instrumentation.family.norm.kind == "layer"

    def _can_center_writing_weights(self) -> bool:
        if not self._centres():
            logger.warning(
                "center_writing_weights is left out, as in TransformerLens: the norms of %s models do not take the "
                "mean off, so that it matters what it is.",
                self.instrumentation.family.name,
            )
        return self._centres()

    def _can_center_unembed(self) -> bool:
        capped = self.cfg.output_logits_soft_cap > 0
        if capped:
            logger.warning(
                "center_unembed is left out, as in TransformerLens: a soft cap of %s stands behind the unembedding, so "
                "that predictions would change.",
                self.cfg.output_logits_soft_cap,
            )
        return not capped

    def process_weights_(
        self,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        fold_value_biases: bool = True,
    ) -> None:
        """Simplify the weights in place. What the model predicts stays the same within rounding, its bits do not.

        A copy of the original parameters is kept, so that :meth:`undo_processing` can bring them back exactly. Tied
        embeddings are untied.

        Args:
            fold_ln: gain and bias of ``ln1``, ``ln2`` and ``ln_final`` go into the weights that follow.
            center_writing_weights: weights that write to the residual stream get mean 0. Left out, with a warning in
                the log, where norms do not take the mean off, as RMS norms.
            center_unembed: logits get mean 0. Left out, likewise, where a soft cap is on them.
            refactor_factored_attn_matrices: query with key, and value with output, are factored anew; not with rotary
                embeddings or norms of queries and keys.
            fold_value_biases: value biases go into the attention's output bias.

        Raises:
            ProcessingError: it would change what the model predicts. The message says which argument, and why; the
                weights stay as they were.
        """
        self.load_and_process_state_dict(
            {}, fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices
        )

    def undo_processing(self) -> None:
        """Bring back, bit by bit, the weights of before the first processing.

        Raises:
            ProcessingError: nothing was processed.
        """
        if self._original is None:
            raise ProcessingError("no weights were processed, so there is nothing to undo.")
        original, self._original = self._original, None
        for module in original.without_bias:
            module.bias = None
        if original.tied:
            self.unembed.module.weight = self.embed.module.weight
            self._set_tied(True)
        with torch.no_grad():
            for name, parameter in self.hf_model.named_parameters():
                parameter.copy_(original.values[name])
        self.cfg.normalization_type = original.normalization_type

    def _remember(self) -> None:
        """Keep the weights, and give the unembedding one of its own to write to."""
        kept = {name: value.detach().clone() for name, value in self.hf_model.named_parameters()}
        output, embedding = self.unembed.module, self.embed.module
        tied = output.weight is embedding.weight
        if tied:
            weight = embedding.weight
            output.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            self._set_tied(False)
        self._original = _Original(kept, [], tied, self.cfg.normalization_type)

    def _set_tied(self, tied: bool) -> None:
        """Let saving and loading know: a tied checkpoint holds one of the two matrices only."""
        self.hf_model.config.tie_word_embeddings = tied
        self.cfg.tie_word_embeddings = tied

    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        """Write what differs from what is there: where a number is kept otherwise, writing it costs its last bits."""
        original = self._original
        assert original is not None
        for component in self._components():
            for weight in dict.fromkeys((*component.weights, *_OF_OURS)):
                name = f"{component.name}.{weight}"
                if name not in values and weight not in component.weights:
                    continue
                before = getattr(component, weight)
                neutral = torch.ones_like if weight == "w" else torch.zeros_like
                value = values[name] if name in values else neutral(before)
                if torch.equal(before, value.to(before)):
                    continue
                view = vars(type(component)).get(weight)
                module = view.module_of(component) if isinstance(view, View) and view.is_bias else None
                if module is not None and lacks_bias(module):
                    original.without_bias.append(module)
                setattr(component, weight, value)

    def fold_layer_norm(
        self, state_dict: StateDict, fold_biases: bool = True, center_weights: bool = True
    ) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.fold_layer_norm`.

        Raises:
            ProcessingError: the norms stand behind attention and MLP.
        """
        family = self.instrumentation.family
        if family.block.norms == "after":
            raise ProcessingError(
                f"fold_ln cannot be done for {family.name}: its norms stand behind attention and MLP, and the residual "
                "stream, not a weight, reads what they give. Leave it out: fold_ln=False."
            )
        return folding.fold_layer_norm(state_dict, fold_biases, center_weights)

    def center_writing_weights(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.center_writing_weights`."""
        return folding.center_writing_weights(state_dict)

    def center_unembed(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.center_unembed`."""
        return folding.center_unembed(state_dict)

    def fold_value_biases(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.fold_value_biases`.

        Raises:
            ProcessingError: the model clips values, biases included.
        """
        limit = clip_of(self.instrumentation.family, self.hf_model.config)
        biased = any(value.any() for name, value in state_dict.items() if name.endswith("b_V"))
        if limit is not None and biased:
            raise ProcessingError(
                f"fold_value_biases cannot be done for this model: it clips values to {limit}, and what the biases add "
                "to them too. Leave it out: fold_value_biases=False."
            )
        return folding.fold_value_biases(state_dict)

    def refactor_factored_attn_matrices(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.refactor_factored_attn_matrices`.

        Raises:
            ProcessingError: the model has rotary embeddings, or norms of queries and keys.
        """
        if self.cfg.use_qk_norm:
            raise ProcessingError(
                "refactor_factored_attn_matrices needs the product of W_Q and W_K, and this model has norms between "
                "them. Leave it out."
            )
        return folding.refactor_factored_attn_matrices(state_dict)


# Entries of TransformerLens's own state dictionaries that are no weights.
_BUFFERS = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")

# Norms whose gain and bias the weights behind them can take; those behind attention and MLP, and of queries, stay.
_FOLDED_NORMS = ("ln1", "ln2", "ln_final")

# Weights that TransformerLens has no name for.
_OF_OURS = ("b_gate",)
