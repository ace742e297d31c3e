"""The parts of a HuggingFace model under TransformerLens's names. They hold no weights: they look at HuggingFace's.

Every weight is a view, so that an edit in place (under ``torch.no_grad()`` or on ``.data``) changes the model, and so
does an assignment, ``blocks[0].attn.W_Q = new``, which copies into the view. Gradients are on HuggingFace's own
parameters: a view is no leaf and has no ``.grad``.
"""

# ruff: noqa: N802, N815 - the names of weights are TransformerLens's

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from mishformer_lens.errors import UnknownHookAttributeError
from mishformer_lens.hooked_transformer.layouts import bias_of, ensure_bias, matrix_of
from mishformer_lens.hooked_transformer.transformer_lens_compat import FactoredMatrix
from mishformer_lens.hooks import HookPoint
from mishformer_lens.suggestions import did_you_mean


class View:
    """A weight of a component. Reading gives a view of HuggingFace's parameter, assigning copies into it."""

    def __init__(self, read: Callable[[Any], torch.Tensor], projection: str | None = None) -> None:
        self._read = read
        self._projection = projection  # the attribute with the module whose bias this is

    def __get__(self, component: "Component", owner: type) -> torch.Tensor:
        return self._read(component)

    def __set__(self, component: "Component", value: torch.Tensor) -> None:
        with torch.no_grad():
            if self._projection is not None:
                ensure_bias(getattr(component, self._projection))
            self._read(component).copy_(value)


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
        shapes = ", ".join(f"{name} {list(getattr(self, name).shape)}" for name in self.weights)
        return f"{self.name}({shapes})"


class LayerNorm(Component):
    """``ln1``, ``ln2``, ``ln_final``: gain ``w`` and bias ``b``, ``[d_model]``. Calling it runs the module."""

    weights = ("w", "b")
    w = View(lambda self: self.module.weight)
    b = View(lambda self: self.module.bias)

    def __init__(self, name: str, hook_points: Mapping[str, HookPoint], module: nn.LayerNorm) -> None:
        super().__init__(name, hook_points)
        self.module = module
        self.eps = module.eps

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
    W_Q = View(lambda self: self._fused_matrix(0))
    W_K = View(lambda self: self._fused_matrix(1))
    W_V = View(lambda self: self._fused_matrix(2))
    W_O = View(lambda self: matrix_of(self.output).unflatten(0, (self.n_heads, -1)))
    b_Q = View(lambda self: self._fused_bias(0), "qkv")
    b_K = View(lambda self: self._fused_bias(1), "qkv")
    b_V = View(lambda self: self._fused_bias(2), "qkv")
    b_O = View(lambda self: bias_of(self.output), "output")

    def __init__(
        self,
        name: str,
        hook_points: Mapping[str, HookPoint],
        qkv: nn.Module,
        output: nn.Module,
        n_heads: int,
        layout: str,
    ) -> None:
        super().__init__(name, hook_points)
        self.qkv = qkv
        self.output = output
        self.n_heads = n_heads
        self._part_first = layout.startswith("part")

    def _parts(self, fused: torch.Tensor) -> torch.Tensor:
        """``[..., outputs]`` as ``[..., part, head_index, d_head]``, a view."""
        shape = (3, self.n_heads, -1) if self._part_first else (self.n_heads, 3, -1)
        parts: torch.Tensor = fused.unflatten(-1, shape)
        return parts if self._part_first else parts.transpose(-3, -2)

    def _fused_matrix(self, part: int) -> torch.Tensor:
        return self._parts(matrix_of(self.qkv))[:, part].transpose(0, 1)

    def _fused_bias(self, part: int) -> torch.Tensor:
        return self._parts(bias_of(self.qkv))[part]

    @property
    def QK(self) -> FactoredMatrix:
        """``W_Q W_K^T``, ``[head_index, d_model, d_model]``, factored."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """``W_V W_O``, ``[head_index, d_model, d_model]``, factored."""
        return FactoredMatrix(self.W_V, self.W_O)


class MLP(Component):
    """``W_in`` ``[d_model, d_mlp]``, ``b_in`` ``[d_mlp]``, ``W_out`` ``[d_mlp, d_model]``, ``b_out`` ``[d_model]``."""

    weights = ("W_in", "b_in", "W_out", "b_out")
    W_in = View(lambda self: matrix_of(self.input))
    b_in = View(lambda self: bias_of(self.input), "input")
    W_out = View(lambda self: matrix_of(self.output))
    b_out = View(lambda self: bias_of(self.output), "output")

    def __init__(
        self,
        name: str,
        hook_points: Mapping[str, HookPoint],
        module: nn.Module,
        projections: tuple[nn.Module, nn.Module],
    ) -> None:
        super().__init__(name, hook_points)
        self.module = module
        self.input, self.output = projections

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
    W_E = View(lambda self: self.module.weight)

    def __init__(self, module: Any) -> None:
        super().__init__("embed", {})
        self.module = module

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding ``[batch, pos, d_model]`` of tokens ``[batch, pos]``."""
        embedding: torch.Tensor = self.module(tokens)
        return embedding


class PosEmbed(Component):
    """``W_pos`` ``[n_ctx, d_model]``."""

    weights = ("W_pos",)
    W_pos = View(lambda self: self.module.weight)

    def __init__(self, module: nn.Module) -> None:
        super().__init__("pos_embed", {})
        self.module = module

    def __call__(
        self, tokens: torch.Tensor, past_kv_pos_offset: int = 0, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The positional embedding ``[batch, pos, d_model]`` for tokens ``[batch, pos]``.

        Args:
            attention_mask: ``[batch, past_kv_pos_offset + pos]``; positions count from the first attended token.
        """
        if attention_mask is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device) + past_kv_pos_offset
            positions = positions.expand(tokens.shape[0], -1)
        else:
            positions = positions_of(attention_mask)[:, past_kv_pos_offset:]
        embedding: torch.Tensor = self.module(positions)
        return embedding


class Unembed(Component):
    """``W_U`` ``[d_model, d_vocab]`` and ``b_U`` ``[d_vocab]``: zeros that belong to nothing where there is none."""

    weights = ("W_U", "b_U")
    W_U = View(lambda self: matrix_of(self.module))
    b_U = View(lambda self: bias_of(self.module), "module")

    def __init__(self, module: Any) -> None:
        super().__init__("unembed", {})
        self.module = module

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, pos, d_vocab]`` of a normalised residual stream ``[batch, pos, d_model]``."""
        logits: torch.Tensor = self.module(residual)
        return logits


def positions_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """The position ``[batch, pos]`` of each token, counted from the first attended one; 0 before it."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
