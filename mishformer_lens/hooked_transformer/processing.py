"""Weight processing on HuggingFace's own weights, and back; TransformerLens's state dictionaries."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mishformer_lens.errors import ProcessingError
from mishformer_lens.hooked_transformer import folding
from mishformer_lens.hooked_transformer.components import Block
from mishformer_lens.hooked_transformer.folding import StateDict
from mishformer_lens.hooked_transformer.projections import ensure_bias
from mishformer_lens.hooked_transformer.weights import Weights
from mishformer_lens.suggestions import did_you_mean


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

        Its buffers (masks, rotary tables) are not in it: load it with ``strict=False``. Where layer norms were folded
        (``cfg.normalization_type`` is ``LNPre``) there are no entries for them, as there.
        """
        folded = self.cfg.normalization_type == "LNPre"
        return {
            name: value.detach()
            for name, value in self.tl_parameters().items()
            if not (folded and name.endswith((".w", ".b")))
        }

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
        unknown = [name for name in state_dict if name not in own and not name.endswith(_BUFFERS)]
        if unknown:
            raise ProcessingError(
                f"the state dict has {unknown[0]!r}, which this model does not have. {did_you_mean(unknown[0], own)}"
                "Needed are TransformerLens's names, as in to_transformer_lens_state_dict()."
            )
        # Copies: they may be views of the very parameters that are about to be written.
        given = {name: value.detach().clone() for name, value in state_dict.items() if name in own}
        with contextlib.ExitStack() as on_error:
            if self._original is None:
                self._remember()
                on_error.callback(self.undo_processing)
            values = self.to_transformer_lens_state_dict() | given
            if fold_ln and self.cfg.normalization_type != "LNPre":
                values = self.fold_layer_norm(values)
            if center_writing_weights:
                values = self.center_writing_weights(values)
            if center_unembed:
                values = self.center_unembed(values)
            if fold_value_biases:
                values = self.fold_value_biases(values)
            if refactor_factored_attn_matrices:
                values = self.refactor_factored_attn_matrices(values)
            on_error.pop_all()
        self._write(values)
        if fold_ln:
            self.cfg.normalization_type = "LNPre"

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
            fold_ln: layer norms' gain and bias go into the weights that follow.
            center_writing_weights: weights that write to the residual stream get mean 0.
            center_unembed: logits get mean 0.
            refactor_factored_attn_matrices: query with key, and value with output, are factored anew; GPT-2 only.
            fold_value_biases: value biases go into the attention's output bias.
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
        """Keep the weights, and give every projection a weight and a bias of its own to write to."""
        kept = {name: value.detach().clone() for name, value in self.hf_model.named_parameters()}
        output, embedding = self.unembed.module, self.embed.module
        tied = output.weight is embedding.weight
        if tied:
            weight = embedding.weight
            output.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            self._set_tied(False)
        projections = [part for block in self.blocks for part in _projections(block)]
        without_bias = [each for each in (*projections, output) if ensure_bias(each, "a projection's bias")]
        self._original = _Original(kept, without_bias, tied, self.cfg.normalization_type)

    def _set_tied(self, tied: bool) -> None:
        """Let saving and loading know: a tied checkpoint holds one of the two matrices only."""
        self.hf_model.config.tie_word_embeddings = tied
        self.cfg.tie_word_embeddings = tied

    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for component in self._components():
                for weight in component.weights:
                    name = f"{component.name}.{weight}"
                    neutral = torch.ones if weight == "w" else torch.zeros
                    target = getattr(component, weight)
                    target.copy_(values[name] if name in values else neutral(target.shape))

    def fold_layer_norm(
        self, state_dict: StateDict, fold_biases: bool = True, center_weights: bool = True
    ) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.fold_layer_norm`."""
        return folding.fold_layer_norm(state_dict, fold_biases, center_weights)

    def center_writing_weights(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.center_writing_weights`."""
        return folding.center_writing_weights(state_dict)

    def center_unembed(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.center_unembed`."""
        return folding.center_unembed(state_dict)

    def fold_value_biases(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.fold_value_biases`."""
        return folding.fold_value_biases(state_dict)

    def refactor_factored_attn_matrices(self, state_dict: StateDict) -> StateDict:
        """See :func:`mishformer_lens.hooked_transformer.folding.refactor_factored_attn_matrices`."""
        return folding.refactor_factored_attn_matrices(state_dict)


# Entries of TransformerLens's own state dictionaries that are no weights.
_BUFFERS = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")


def _projections(block: Block) -> tuple[nn.Module, ...]:
    return block.attn.qkv, block.attn.output, block.mlp.input, block.mlp.output
