"""The parts of a HuggingFace model under TransformerLens's names. They hold no weights: they look at HuggingFace's.

A part is a place in the live model: what stands there now is what it shows, also after layers were cut off, heads
pruned, embeddings resized or modules replaced. Every weight is a view, so that an edit in place (under
``torch.no_grad()`` or on ``.data``) changes the model, and so does an assignment, ``blocks[0].attn.W_Q = new``, which
copies into the view. Gradients are on HuggingFace's own parameters: a view is no leaf and has no ``.grad``.
"""

# ruff: noqa: N802, N815 - the names of weights are TransformerLens's

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from mishformer_lens.errors import UnknownHookAttributeError, UnreadableWeightError
from mishformer_lens.hooked_transformer.by_hand import AttentionCall
from mishformer_lens.hooked_transformer.key_values import positions_of
from mishformer_lens.hooked_transformer.projections import (
    bias_of,
    check_assignable,
    d_in_of,
    ensure_bias,
    matrix_of,
    weight_of,
)
from mishformer_lens.hooked_transformer.transformer_lens_compat import FactoredMatrix
from mishformer_lens.hooks import HookPoint
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.parts import DropIn
from mishformer_lens.suggestions import did_you_mean


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a live model."""

    model: nn.Module
    path: str

    @property
    def module(self) -> Any:
        """The module that is there now."""
        module: Any = self.model
        for name in self.path.split("."):
            # What get_submodule() does, at a fifth of its price; a wrapper's own way to its parts is the other branch.
            inner = module._modules.get(name)
            module = getattr(module, name) if inner is None else inner
        return module

    def inside(self, path: str) -> "Place":
        """A place further in."""
        return Place(self.model, f"{self.path}.{path}" if self.path else path)


@dataclasses.dataclass(frozen=True)
class OutputEmbeddings:
    """The place of the module that gives the logits, which HuggingFace's model knows by itself."""

    model: Any

    @property
    def module(self) -> Any:
        """The module that is there now."""
        return self.model.get_output_embeddings()


class View:
    """A weight of a component. Reading gives a view of HuggingFace's parameter, assigning copies into it.

    Args:
        read: makes the view, from the component and the weight's full name.
        module: the attribute of the component with the module whose weight it is.
        is_bias: whether it is the module's bias, which the module may lack.
    """

    def __init__(self, read: Callable[[Any, str], torch.Tensor], module: str = "module", is_bias: bool = False) -> None:
        self._read = read
        self._module = module
        self._is_bias = is_bias

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, component: "Component", owner: type) -> torch.Tensor:
        return self._read(component, f"{component.name}.{self._name}")

    def __set__(self, component: "Component", value: torch.Tensor) -> None:
        name = f"{component.name}.{self._name}"
        module = getattr(component, self._module)
        with torch.no_grad():
            if self._is_bias:
                ensure_bias(module, name)
            check_assignable(module, "bias" if self._is_bias else "weight", name)
            self._read(component, name).copy_(value)


class Component:
    """A part of the model with the hook points that TransformerLens has on it, as attributes.

    Attributes:
        name: TransformerLens's name, as ``blocks.0.attn``.
        weights: names of its weights.
    """

    weights: tuple[str, ...] = ()

    def __init__(self, name: str, hook_points: Mapping[str, HookPoint]) -> None:
        self.name = name
        self._hook_points = hook_points

    @functools.cached_property
    def _hooks(self) -> dict[str, HookPoint]:
        # Found when asked for: to look through all names for each of all parts is a quarter of the time of hooking.
        prefix = f"{self.name}."
        return {
            full.removeprefix(prefix): point
            for full, point in self._hook_points.items()
            if full.startswith(prefix) and "." not in full.removeprefix(prefix)
        }

    def __getattr__(self, name: str) -> HookPoint:
        if name.startswith("hook_"):
            if name in self._hooks:
                return self._hooks[name]
            raise UnknownHookAttributeError(
                f"{self.name} has no hook point {name!r}. {did_you_mean(name, self._hooks)}"
                f"It has: {', '.join(self._hooks) or 'none'}."
            )
        raise AttributeError(f"{type(self).__name__} {self.__dict__.get('name', '')} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name} {self._shape(name)}' for name in self.weights)})"

    def _shape(self, weight: str) -> str:
        try:
            return str(list(getattr(self, weight).shape))
        except UnreadableWeightError:
            return "not readable"


class LayerNorm(Component):
    """``ln1``, ``ln2``, ``ln_final``: gain ``w`` and bias ``b``, ``[d_model]``. Calling it runs the module."""

    weights = ("w", "b")
    w = View(lambda self, name: weight_of(self.module, name))
    b = View(lambda self, name: bias_of(self.module, name), is_bias=True)

    def __init__(self, name: str, hook_points: Mapping[str, HookPoint], place: Place) -> None:
        super().__init__(name, hook_points)
        self._place = place

    @property
    def module(self) -> Any:
        """HuggingFace's layer norm."""
        return self._place.module

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return float(self.module.eps)

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Normalise ``[..., d_model]``; its hooks see it."""
        normalized: torch.Tensor = self.module(residual)
        return normalized


class Attention(Component):
    """The weights of an attention layer, by head.

    ``W_Q``, ``W_K``, ``W_V`` are ``[head_index, d_model, d_head]``, ``W_O`` is ``[head_index, d_head, d_model]``,
    ``b_Q``, ``b_K``, ``b_V`` are ``[head_index, d_head]``, ``b_O`` is ``[d_model]``.
    """

    weights = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
    W_Q = View(lambda self, name: self._fused_matrix(0, name), "qkv")
    W_K = View(lambda self, name: self._fused_matrix(1, name), "qkv")
    W_V = View(lambda self, name: self._fused_matrix(2, name), "qkv")
    W_O = View(lambda self, name: matrix_of(self.output, name).unflatten(0, (-1, self.d_head)), "output")
    b_Q = View(lambda self, name: self._fused_bias(0, name), "qkv", is_bias=True)
    b_K = View(lambda self, name: self._fused_bias(1, name), "qkv", is_bias=True)
    b_V = View(lambda self, name: self._fused_bias(2, name), "qkv", is_bias=True)
    b_O = View(lambda self, name: bias_of(self.output, name), "output", is_bias=True)

    def __init__(
        self,
        name: str,
        hook_points: Mapping[str, HookPoint],
        block: Place,
        family: Family,
        drop_in: DropIn,
    ) -> None:
        super().__init__(name, hook_points)
        self._block = block
        self._family = family
        self._drop_in = drop_in
        self._part_first = str(family.attention.qkv_layout).startswith("part")

    @property
    def model(self) -> nn.Module:
        """The base model that the layer is in."""
        return self._block.model

    @property
    def config(self) -> Any:
        """HuggingFace's configuration of the model."""
        return self.model.config

    @property
    def index(self) -> int:
        """The layer's number, from 0."""
        return int(self.name.split(".")[1])

    @property
    def module(self) -> Any:
        """HuggingFace's attention."""
        return self._block.inside(self._family.components["attn"]).module

    @property
    def qkv(self) -> Any:
        """The module that projects queries, keys and values together."""
        return self._block.inside(self._drop_in.qkv).module

    @property
    def output(self) -> Any:
        """The module that projects back to the residual stream."""
        return self._block.inside(self._drop_in.output).module

    @property
    def d_head(self) -> int:
        """The size of a head, in numbers."""
        return int(getattr(self.module, self._family.attention.head_size))

    @property
    def n_heads(self) -> int:
        """How many heads it has now; pruning leaves fewer than the configuration says."""
        d_in = d_in_of(self.output)
        return int(self.config.num_attention_heads) if d_in is None else d_in // self.d_head

    def _parts(self, fused: torch.Tensor) -> torch.Tensor:
        """``[..., outputs]`` as ``[..., part, head_index, d_head]``, a view."""
        shape = (3, -1, self.d_head) if self._part_first else (-1, 3, self.d_head)
        parts: torch.Tensor = fused.unflatten(-1, shape)
        return parts if self._part_first else parts.transpose(-3, -2)

    def _fused_matrix(self, part: int, name: str) -> torch.Tensor:
        return self._parts(matrix_of(self.qkv, name))[:, part].transpose(0, 1)

    def _fused_bias(self, part: int, name: str) -> torch.Tensor:
        return self._parts(bias_of(self.qkv, name))[part]

    @property
    def QK(self) -> FactoredMatrix:
        """``W_Q W_K^T``, ``[head_index, d_model, d_model]``, factored."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """``W_V W_O``, ``[head_index, d_model, d_model]``, factored."""
        return FactoredMatrix(self.W_V, self.W_O)

    def __call__(
        self,
        query_input: torch.Tensor,
        key_input: torch.Tensor,
        value_input: torch.Tensor,
        past_kv_cache_entry: Any | None = None,
        additive_attention_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the attention writes, ``[batch, pos, d_model]``, for inputs of its queries, keys and values.

        Computed from the weights as TransformerLens does it, since HuggingFace's module takes one input for all
        three: the same within rounding, without dropout. The hooks of this attention see it.

        Args:
            query_input: ``[batch, pos, d_model]``, or one for each head, ``[batch, pos, head_index, d_model]``:
                normalised already. ``key_input`` and ``value_input`` alike.
            past_kv_cache_entry: an entry of TransformerLens's key-value cache, to which keys and values are added.
            additive_attention_mask: added to the scores, ``[batch, 1, 1, key_pos]``.
            attention_mask: 1 for tokens, 0 for padding, ``[batch, past + pos]``.
            position_bias: must be None; neither family has it.

        Raises:
            ForwardArgumentsError: a ``position_bias``, or a kind of rotary embedding that this does not know.
        """
        call = AttentionCall(self, past_kv_cache_entry, additive_attention_mask, attention_mask, position_bias)
        return call.run(query_input, key_input, value_input)


class MLP(Component):
    """``W_in`` ``[d_model, d_mlp]``, ``b_in`` ``[d_mlp]``, ``W_out`` ``[d_mlp, d_model]``, ``b_out`` ``[d_model]``."""

    weights = ("W_in", "b_in", "W_out", "b_out")
    W_in = View(lambda self, name: matrix_of(self.input, name), "input")
    b_in = View(lambda self, name: bias_of(self.input, name), "input", is_bias=True)
    W_out = View(lambda self, name: matrix_of(self.output, name), "output")
    b_out = View(lambda self, name: bias_of(self.output, name), "output", is_bias=True)

    def __init__(
        self, name: str, hook_points: Mapping[str, HookPoint], block: Place, drop_in: DropIn, mlp: str
    ) -> None:
        super().__init__(name, hook_points)
        self._block = block
        self._drop_in = drop_in
        self._mlp = mlp

    @property
    def module(self) -> Any:
        """HuggingFace's MLP."""
        return self._block.inside(self._mlp).module

    @property
    def input(self) -> Any:
        """The module that projects to the neurons."""
        return self._block.inside(self._drop_in.mlp_in).module

    @property
    def output(self) -> Any:
        """The module that projects back to the residual stream."""
        return self._block.inside(self._drop_in.mlp_out).module

    def __call__(self, normalized: torch.Tensor) -> torch.Tensor:
        """What the MLP makes of a normalised residual stream ``[batch, pos, d_model]``; its hooks see it."""
        written: torch.Tensor = self.module(normalized)
        return written


class Block(Component):
    """One layer, with ``attn``, ``mlp``, ``ln1`` and ``ln2``. Calling it runs the whole layer."""

    def __init__(
        self,
        name: str,
        hook_points: Mapping[str, HookPoint],
        parts: tuple[LayerNorm, Attention, LayerNorm, MLP],
        run: Callable[..., Any],
    ) -> None:
        super().__init__(name, hook_points)
        self.ln1, self.attn, self.ln2, self.mlp = parts
        self._run = run

    def __call__(self, residual: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The residual stream after this layer, for the one before it, ``[batch, pos, d_model]``."""
        index = int(self.name.rpartition(".")[2])
        after: torch.Tensor = self._run(
            residual, start_at_layer=index, stop_at_layer=index + 1, attention_mask=attention_mask
        )
        return after


class Embed(Component):
    """``W_E`` ``[d_vocab, d_model]``."""

    weights = ("W_E",)
    W_E = View(lambda self, name: weight_of(self.module, name))

    def __init__(self, place: Place) -> None:
        super().__init__("embed", {})
        self._place = place

    @property
    def module(self) -> Any:
        """HuggingFace's embedding."""
        return self._place.module

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding ``[batch, pos, d_model]`` of tokens ``[batch, pos]``."""
        embedding: torch.Tensor = self.module(tokens)
        return embedding


class PosEmbed(Component):
    """``W_pos`` ``[n_ctx, d_model]``."""

    weights = ("W_pos",)
    W_pos = View(lambda self, name: weight_of(self.module, name))

    def __init__(self, place: Place) -> None:
        super().__init__("pos_embed", {})
        self._place = place

    @property
    def module(self) -> Any:
        """HuggingFace's positional embedding."""
        return self._place.module

    def __call__(
        self, tokens: torch.Tensor, past_kv_pos_offset: int = 0, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The positional embedding ``[batch, pos, d_model]`` for tokens ``[batch, pos]``.

        Args:
            attention_mask: ``[batch, past_kv_pos_offset + pos]``; positions count from the first attended token, and
                padding gets zeros. In a forward pass padding gets HuggingFace's embedding of position 0.
        """
        length = tokens.shape[-1]
        if attention_mask is None:
            positions = torch.arange(length, device=tokens.device) + past_kv_pos_offset
            embedding: torch.Tensor = self.module(positions.expand(tokens.shape[0], -1))
            return embedding
        own = slice(past_kv_pos_offset, past_kv_pos_offset + length)
        embedding = self.module(positions_of(attention_mask)[:, own])
        return torch.where(attention_mask[:, own, None].bool(), embedding, torch.zeros_like(embedding))


class Unembed(Component):
    """``W_U`` ``[d_model, d_vocab]`` and ``b_U`` ``[d_vocab]``: zeros that belong to nothing where there is none."""

    weights = ("W_U", "b_U")
    W_U = View(lambda self, name: matrix_of(self.module, name))
    b_U = View(lambda self, name: bias_of(self.module, name), is_bias=True)

    def __init__(self, place: OutputEmbeddings) -> None:
        super().__init__("unembed", {})
        self._place = place

    @property
    def module(self) -> Any:
        """HuggingFace's module that gives the logits."""
        return self._place.module

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, pos, d_vocab]`` of a normalised residual stream ``[batch, pos, d_model]``."""
        logits: torch.Tensor = self.module(residual)
        return logits
