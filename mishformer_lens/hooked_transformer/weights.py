"""The weights under TransformerLens's names, and what is computed from them."""

# ruff: noqa: N802 - the names of weights are TransformerLens's

from collections.abc import Iterator

import torch

from mishformer_lens.errors import ForwardArgumentsError, UnreadableWeightError
from mishformer_lens.hooked_transformer.base import HookedTransformerBase
from mishformer_lens.hooked_transformer.components import Component
from mishformer_lens.hooked_transformer.transformer_lens_compat import FactoredMatrix, utils


class Weights(HookedTransformerBase):
    """Weights as properties. Those of one layer are views, ``blocks[i].attn.W_Q``; those below with a layer axis are
    stacked, hence copies, as in TransformerLens."""

    def _components(self) -> Iterator[Component]:
        yield self.embed
        if self.embed.ln is not None:
            yield self.embed.ln
        if self.cfg.positional_embedding_type == "standard":
            yield self.pos_embed
        for block in self.blocks:
            yield from block.components
        yield self.ln_final
        yield self.unembed

    def tl_parameters(self) -> dict[str, torch.Tensor]:
        """Every weight by TransformerLens's name, as ``blocks.0.attn.W_Q``: views of HuggingFace's parameters."""
        return {
            f"{component.name}.{weight}": getattr(component, weight)
            for component in self._components()
            for weight in component.weights
        }

    def _stacked(self, component: str, weight: str) -> torch.Tensor:
        weights = [getattr(getattr(block, component), weight) for block in self.blocks]
        shapes = sorted({tuple(each.shape) for each in weights})
        if len(shapes) > 1:
            raise UnreadableWeightError(
                f"{weight} differs in shape from layer to layer, {' and '.join(map(str, shapes))}, as after pruning, "
                f"so that there is no stack of all. Read model.blocks[i].{component}.{weight}."
            )
        return torch.stack(weights)

    @property
    def W_E(self) -> torch.Tensor:
        """The token embedding ``[d_vocab, d_model]``, HuggingFace's parameter itself."""
        return self.embed.W_E

    @property
    def W_pos(self) -> torch.Tensor:
        """The positional embedding ``[n_ctx, d_model]``, HuggingFace's parameter itself.

        Raises:
            AttributeError: the model has rotary embeddings.
        """
        return self.pos_embed.W_pos

    @property
    def W_E_pos(self) -> torch.Tensor:
        """``W_E`` and ``W_pos`` one after the other, ``[d_vocab + n_ctx, d_model]``; a copy."""
        return torch.cat([self.W_E, self.W_pos])

    @property
    def W_U(self) -> torch.Tensor:
        """The unembedding ``[d_model, d_vocab]``, a view."""
        return self.unembed.W_U

    @property
    def b_U(self) -> torch.Tensor:
        """The unembedding's bias ``[d_vocab]``; zeros that belong to nothing where the model has none."""
        return self.unembed.b_U

    @property
    def W_Q(self) -> torch.Tensor:
        """``[n_layers, head_index, d_model, d_head]``."""
        return self._stacked("attn", "W_Q")

    @property
    def W_K(self) -> torch.Tensor:
        """``[n_layers, head_index, d_model, d_head]``."""
        return self._stacked("attn", "W_K")

    @property
    def W_V(self) -> torch.Tensor:
        """``[n_layers, head_index, d_model, d_head]``."""
        return self._stacked("attn", "W_V")

    @property
    def W_O(self) -> torch.Tensor:
        """``[n_layers, head_index, d_head, d_model]``."""
        return self._stacked("attn", "W_O")

    @property
    def W_in(self) -> torch.Tensor:
        """``[n_layers, d_model, d_mlp]``."""
        return self._stacked("mlp", "W_in")

    @property
    def W_gate(self) -> torch.Tensor | None:
        """``[n_layers, d_model, d_mlp]`` of gated MLPs; None where they are not gated."""
        return self._stacked("mlp", "W_gate") if self.cfg.gated_mlp else None

    @property
    def W_out(self) -> torch.Tensor:
        """``[n_layers, d_mlp, d_model]``."""
        return self._stacked("mlp", "W_out")

    @property
    def b_Q(self) -> torch.Tensor:
        """``[n_layers, head_index, d_head]``."""
        return self._stacked("attn", "b_Q")

    @property
    def b_K(self) -> torch.Tensor:
        """``[n_layers, head_index, d_head]``."""
        return self._stacked("attn", "b_K")

    @property
    def b_V(self) -> torch.Tensor:
        """``[n_layers, head_index, d_head]``."""
        return self._stacked("attn", "b_V")

    @property
    def b_O(self) -> torch.Tensor:
        """``[n_layers, d_model]``."""
        return self._stacked("attn", "b_O")

    @property
    def b_in(self) -> torch.Tensor:
        """``[n_layers, d_mlp]``."""
        return self._stacked("mlp", "b_in")

    @property
    def b_out(self) -> torch.Tensor:
        """``[n_layers, d_model]``."""
        return self._stacked("mlp", "b_out")

    @property
    def QK(self) -> FactoredMatrix:
        """``W_Q W_K^T``, ``[n_layers, head_index, d_model, d_model]``, factored."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """``W_V W_O``, ``[n_layers, head_index, d_model, d_model]``, factored."""
        return FactoredMatrix(self.W_V, self.W_O)

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> torch.Tensor:
        """The sum of all output biases before ``layer``, ``[d_model]``.

        Args:
            layer: 0 for none, ``n_layers`` for all layers.
            mlp_input: also that of this layer's attention.
            include_mlp_biases: also those of the MLPs.

        Raises:
            ForwardArgumentsError: there is no such layer.
        """
        n_layers = len(self.blocks)
        if not 0 <= layer <= n_layers or (mlp_input and layer == n_layers):
            raise ForwardArgumentsError(
                f"layer is {layer}, mlp_input is {mlp_input}; the model has layers 0 to {n_layers - 1}, and "
                f"{n_layers} stands for the end of the last, which has no MLP input."
            )
        total = torch.zeros(self.cfg.d_model, device=self.cfg.device)
        for block in self.blocks[:layer]:
            total = total + block.attn.b_O
            if include_mlp_biases:
                total = total + block.mlp.b_out
        return total + self.blocks[layer].attn.b_O if mlp_input else total

    def all_head_labels(self) -> list[str]:
        """``L0H0``, ``L0H1``, ... in the order of the stacked weights."""
        return [f"L{layer}H{head}" for layer, block in enumerate(self.blocks) for head in range(block.attn.n_heads)]

    def all_composition_scores(self, mode: str) -> torch.Tensor:
        """How much each head composes with each later one, ``[n_layers, head_index, n_layers, head_index]``.

        Args:
            mode: ``Q``, ``K`` or ``V``.

        Raises:
            ForwardArgumentsError: ``mode`` is none of them.
        """
        if mode not in ("Q", "K", "V"):
            raise ForwardArgumentsError(f"mode is {mode!r}; it must be 'Q', 'K' or 'V'.")
        right = {"Q": lambda: self.QK, "K": lambda: self.QK.T, "V": lambda: self.OV}[mode]()
        scores: torch.Tensor = utils.composition_scores(self.OV, right, broadcast_dims=True)
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        later = layers[:, None, None, None] < layers[None, None, :, None]
        return torch.where(later, scores, torch.zeros_like(scores))
