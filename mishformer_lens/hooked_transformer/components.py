"""The parts of a HuggingFace model under TransformerLens's names. They hold no weights: they look at HuggingFace's.

A part is a place in the live model: what stands there now is what it shows, also after layers were cut off, heads
pruned, embeddings resized or modules replaced. Every weight is a view, so that an edit in place (under
``torch.no_grad()`` or on ``.data``) changes the model, and so does an assignment, ``blocks[0].attn.W_Q = new``, which
copies into the view. Gradients are on HuggingFace's own parameters: a view is no leaf and has no ``.grad``.
"""

# ruff: noqa: N802, N815 - the names of weights are TransformerLens's

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from mishformer_lens import fused
from mishformer_lens.errors import UnknownHookAttributeError, UnreadableWeightError
from mishformer_lens.hooked_transformer.by_hand import AttentionCall
from mishformer_lens.hooked_transformer.key_values import positions_of
from mishformer_lens.hooked_transformer.projections import (
    bias_of,
    check_assignable,
    d_in_of,
    d_out_of,
    ensure_bias,
    gain_of,
    lacks_bias,
    matrix_of,
    shift_of,
    weight_of,
)
from mishformer_lens.hooked_transformer.transformer_lens_compat import FactoredMatrix
from mishformer_lens.hooks import HookPoint
from mishformer_lens.instrumentation import module_at
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.parts import GROUP_BY_GROUP, DropIn, Norm
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

    @property
    def exists(self) -> bool:
        """Whether a module is there."""
        return module_at(self.model, self.path) is not None

    def inside(self, path: str) -> "Place":
        """A place further in."""
        return Place(self.model, f"{self.path}.{path}" if self.path and path else self.path or path)


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

    Where what TransformerLens calls so is not the very number that HuggingFace keeps, but a multiple of it or one more,
    reading gives a new tensor: then an edit in place reaches nothing, and an assignment does.

    Args:
        read: makes the view, from the component and the weight's full name.
        module: the attribute of the component with the module whose weight it is.
        is_bias: whether it is the module's bias, which the module may lack.
        factor: the attribute of the component with what HuggingFace's number is multiplied by.
        added: likewise what is added to it.
    """

    def __init__(
        self,
        read: Callable[[Any, str], torch.Tensor],
        module: str = "module",
        is_bias: bool = False,
        factor: str | None = None,
        added: str | None = None,
    ) -> None:
        self._read = read
        self._module = module
        self.is_bias = is_bias
        self._factor = factor
        self._added = added

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def _terms(self, component: "Component") -> tuple[float, float]:
        factor = 1.0 if self._factor is None else getattr(component, self._factor)
        return factor, 0.0 if self._added is None else getattr(component, self._added)

    def __get__(self, component: "Component", owner: type) -> torch.Tensor:
        value = self._read(component, f"{component.name}.{self._name}")
        factor, added = self._terms(component)
        # The very view where there is nothing to compute.
        value = value if factor == 1 else value * factor
        return value if added == 0 else value + added

    def __set__(self, component: "Component", value: torch.Tensor) -> None:
        name = f"{component.name}.{self._name}"
        module = self.module_of(component)
        component.refuse_assigning(self._name)
        factor, added = self._terms(component)
        with torch.no_grad():
            if self.is_bias:
                ensure_bias(module, name)
            check_assignable(module, "bias" if self.is_bias else "weight", name)
            value = value if added == 0 else value - added
            component.write(self._name, self._read(component, name), value if factor == 1 else value / factor)

    def module_of(self, component: "Component") -> Any:
        """The module whose weight it is."""
        return getattr(component, self._module)


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

    def refuse_assigning(self, weight: str) -> None:
        """Refuse what cannot be written to.

        Raises:
            UnreadableWeightError: it is no weight of its own.
        """

    def write(self, weight: str, view: torch.Tensor, value: torch.Tensor) -> None:  # noqa: ARG002 - others need it
        """Put ``value`` where ``view`` of a weight looks."""
        view.copy_(value)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name} {self._shape(name)}' for name in self.weights)})"

    def _shape(self, weight: str) -> str:
        try:
            return str(list(getattr(self, weight).shape))
        except UnreadableWeightError:
            return "not readable"


class RMSNorm(Component):
    """A norm that does not centre: gain ``w`` ``[d_model]``. Calling it runs the module.

    Where HuggingFace keeps what is added to a gain of one, as Gemma, ``w`` is the gain.
    """

    weights: tuple[str, ...] = ("w",)
    w = View(lambda self, name: gain_of(self.module, name, self._norm.own), added="_added")

    def __init__(self, name: str, hook_points: Mapping[str, HookPoint], place: Place, norm: Norm) -> None:
        super().__init__(name, hook_points)
        self._place = place
        self._norm = norm

    @property
    def module(self) -> Any:
        """HuggingFace's norm."""
        return self._place.module

    @property
    def _added(self) -> float:
        return 1.0 if self._norm.gain_from_one else 0.0

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        eps = self._norm.eps
        return float(getattr(self.module, eps)) if isinstance(eps, str) else eps

    def refuse_assigning(self, weight: str) -> None:
        """Refuse what the module does not have, and what torch does not let it have."""
        module = self.module
        if self._norm.own and module._parameters.get("weight" if weight == "w" else "bias") is None:
            raise UnreadableWeightError(
                f"{self.name}.{weight} cannot be assigned: {type(module).__name__} has no such weight."
            )

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Normalise ``[..., d_model]``; its hooks see it."""
        normalized: torch.Tensor = self.module(residual)
        return normalized


class LayerNorm(RMSNorm):
    """``ln1``, ``ln2``, ``ln_final``: gain ``w`` and bias ``b``, ``[d_model]``. Calling it runs the module."""

    weights = ("w", "b")
    b = View(lambda self, name: shift_of(self.module, name, self._norm.own), is_bias=True)


class HeadNorms(Component):
    """A norm for each head: gains ``w`` ``[head_index, d_head]``, put together anew whenever it is read."""

    weights = ("w",)

    def __init__(self, name: str, hook_points: Mapping[str, HookPoint], place: Place) -> None:
        super().__init__(name, hook_points)
        self._place = place

    @property
    def module(self) -> Any:
        """HuggingFace's norm of all heads."""
        return self._place.module

    @property
    def w(self) -> torch.Tensor:
        """The gains, a copy."""
        return torch.stack([weight_of(norm, f"{self.name}.w") for norm in self.module.norms])

    @w.setter
    def w(self, value: torch.Tensor) -> None:
        with torch.no_grad():
            for norm, gain in zip(self.module.norms, value, strict=True):
                norm.weight.copy_(gain)

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        """Normalise ``[batch, head_index, pos, d_head]``; its hooks see it."""
        normalized: torch.Tensor = self.module(heads)
        return normalized


def norm_component(
    name: str, hook_points: Mapping[str, HookPoint], place: Place, family: Family, part: str
) -> RMSNorm | HeadNorms:
    """The view of a norm: of ``ln1``, ``attn.q_norm`` and so on."""
    if part.startswith("attn.") and family.attention.query_key_norm == "each head":
        return HeadNorms(name, hook_points, place)
    cls = RMSNorm if family.norm.kind == "rms" else LayerNorm
    return cls(name, hook_points, place, family.norm)


class Attention(Component):
    """The weights of an attention layer, by head.

    ``W_Q`` is ``[head_index, d_model, d_head]``, ``W_O`` is ``[head_index, d_head, d_model]``, ``b_Q`` is
    ``[head_index, d_head]``, ``b_O`` is ``[d_model]``. ``_W_K``, ``_W_V`` and ``_b_K``, ``_b_V`` are the same with the
    heads of keys and values, which may be fewer. ``W_K``, ``W_V``, ``b_K``, ``b_V`` have as many heads as queries: the
    same views where there are as many, else copies, each repeated for the heads of queries that share it.

    Where one projection gives keys between the queries that share them, ``W_Q`` and ``b_Q`` are no views: an edit in
    place reaches nothing, and an assignment does.

    Attributes:
        q_norm, k_norm: the norms of queries and keys, in models that have them.
    """

    W_Q = View(lambda self, name: self._matrix(0, name), "query")
    _W_K = View(lambda self, name: self._matrix(1, name), "key")
    _W_V = View(lambda self, name: self._matrix(2, name), "value")
    W_K = View(lambda self, name: self._for_all_heads(self._matrix(1, name)), "key")
    W_V = View(lambda self, name: self._for_all_heads(self._matrix(2, name)), "value")
    W_O = View(
        lambda self, name: matrix_of(self.output, name).unflatten(0, (-1, self.d_head)), "output", factor="_factor"
    )
    b_Q = View(lambda self, name: self._bias(0, name), "query", is_bias=True)
    _b_K = View(lambda self, name: self._bias(1, name), "key", is_bias=True)
    _b_V = View(lambda self, name: self._bias(2, name), "value", is_bias=True)
    b_K = View(lambda self, name: self._for_all_heads(self._bias(1, name)), "key", is_bias=True)
    b_V = View(lambda self, name: self._for_all_heads(self._bias(2, name)), "value", is_bias=True)
    b_O = View(lambda self, name: bias_of(self.output, name), "output", is_bias=True, factor="_factor")

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
        self.norms: dict[str, RMSNorm | HeadNorms] = {}
        for part in ("q_norm", "k_norm"):
            component = family.components.get(f"attn.{part}")
            # Some models of a family lack what others have.
            if component is not None and block.inside(component).exists:
                place = block.inside(component)
                self.norms[part] = norm_component(f"{name}.{part}", hook_points, place, family, f"attn.{part}")
        vars(self).update(self.norms)

    @property
    def weights(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of its weights, with an underscore where keys and values have fewer heads."""
        shared = "_" if self.grouped else ""
        return "W_Q", f"{shared}W_K", f"{shared}W_V", "W_O", "b_Q", f"{shared}b_K", f"{shared}b_V", "b_O"

    def refuse_assigning(self, weight: str) -> None:
        """Refuse the copies for all heads."""
        if self.grouped and weight in ("W_K", "W_V", "b_K", "b_V"):
            raise UnreadableWeightError(
                f"{self.name}.{weight} cannot be assigned: each of its {self.n_key_value_heads} heads serves "
                f"{self.n_heads // self.n_key_value_heads} heads of queries, and this repeats it for each of them. "
                f"Assign to {self.name}._{weight}, which has the {self.n_key_value_heads} heads."
            )

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

    def _projection(self, part: int) -> Any:
        qkv = self._drop_in.qkv
        return self._block.inside(qkv if isinstance(qkv, str) else qkv[part]).module

    @property
    def query(self) -> Any:
        """The module that projects queries, and in some families keys and values with them."""
        return self._projection(0)

    @property
    def key(self) -> Any:
        """The module that projects keys, which may be that of queries."""
        return self._projection(1)

    @property
    def value(self) -> Any:
        """The module that projects values, which may be that of queries."""
        return self._projection(2)

    @property
    def output(self) -> Any:
        """The module that projects back to the residual stream."""
        return self._block.inside(self._drop_in.output).module

    @property
    def _factor(self) -> float:
        return factor_of(self.config, self._drop_in.output_factor)

    @property
    def d_head(self) -> int:
        """The size of a head, in numbers."""
        return int(getattr(self.module, self._family.attention.head_size))

    @property
    def n_heads(self) -> int:
        """How many heads it has now; pruning leaves fewer than the configuration says."""
        d_in = d_in_of(self.output)
        return int(self.config.num_attention_heads) if d_in is None else d_in // self.d_head

    @property
    def n_key_value_heads(self) -> int:
        """How many heads of keys and values it has now."""
        d_out = d_out_of(self.key)
        if d_out is None:
            return int(getattr(self.config, self._key_value_field, self.n_heads))
        heads = d_out // self.d_head
        return heads if isinstance(self._drop_in.qkv, tuple) else (heads - self.n_heads) // 2

    @property
    def _key_value_field(self) -> str:
        return str(self._family.attention.n_key_value_heads).removeprefix("config.")

    @property
    def grouped(self) -> bool:
        """Whether several heads of queries share one of keys and values."""
        return self._family.attention.n_key_value_heads is not None and self.n_key_value_heads != self.n_heads

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are rotated."""
        return self._family.attention.rotary

    @property
    def adjacent_pairs(self) -> bool:
        """Whether two neighbouring numbers are rotated together, rather than one of either half."""
        return self._family.attention.adjacent_pairs

    @property
    def fixed(self) -> Mapping[str, Any]:
        """The configuration fields that are the same in all models of the family."""
        return self._drop_in.fixed

    @property
    def window(self) -> int | None:
        """How many keys a query sees at most; None: all of them."""
        own = vars(self.module)
        if "sliding_window" in own:
            return _number(own["sliding_window"])
        values = self.config.to_dict()
        kinds = values.get("layer_types") or values.get("attention_layers")
        if kinds and kinds[self.index] not in ("sliding_attention", "local"):
            return None
        if not values.get("use_sliding_window", True):
            return None
        return _number(values.get("sliding_window") or values.get("window_size"))

    def not_by_hand(self) -> str | None:
        """Why the layer cannot be computed from weights as :meth:`__call__` does; None if it can."""
        limit = clip_of(self._family, self.config)
        return self._drop_in.not_by_hand if limit is None else f"it clips queries, keys and values to {limit}"

    def normalized(self, part: str, heads: torch.Tensor) -> torch.Tensor:
        """Queries or keys ``[batch, pos, head_index, d_head]`` behind their norm, if they have one: ``q_norm``…"""
        norm = self.norms.get(part)
        if norm is None:
            return heads
        axes = self._family.attention.query_key_norm
        if axes == "joined":
            joined: torch.Tensor = norm(heads.flatten(-2))
            return joined.view_as(heads)
        heads_first = axes != "pos head"
        behind: torch.Tensor = norm(heads.transpose(1, 2) if heads_first else heads)
        return behind.transpose(1, 2) if heads_first else behind

    def _heads(self, projected: torch.Tensor, part: int) -> torch.Tensor:
        """``[..., outputs]`` of a projection as ``[..., head_index, d_head]`` of queries, keys or values.

        A view wherever :func:`mishformer_lens.fused.part_of` gives one.
        """
        if isinstance(self._drop_in.qkv, tuple):
            split: torch.Tensor = projected.unflatten(-1, (-1, self.d_head))
            return split
        heads = (self.n_heads, self.n_key_value_heads, self.n_key_value_heads)
        return fused.part_of(projected, part, self._family.attention.qkv_layout, heads, self.d_head)

    def write(self, weight: str, view: torch.Tensor, value: torch.Tensor) -> None:
        """As for other parts; queries among keys in their place."""
        if weight not in ("W_Q", "b_Q") or self._family.attention.qkv_layout != GROUP_BY_GROUP:
            super().write(weight, view, value)
            return
        name = f"{self.name}.{weight}"
        whole = matrix_of(self.query, name) if weight == "W_Q" else bias_of(self.query, name)
        queries = fused.in_groups(whole, self.n_key_value_heads, self.d_head)[0]
        heads_last = value.transpose(0, 1) if weight == "W_Q" else value
        queries.copy_(heads_last.unflatten(-2, queries.shape[-3:-1]))

    def _matrix(self, part: int, name: str) -> torch.Tensor:
        return self._heads(matrix_of(self._projection(part), name), part).transpose(0, 1)

    def _bias(self, part: int, name: str) -> torch.Tensor:
        return self._heads(bias_of(self._projection(part), name), part)

    def _for_all_heads(self, of_key_value_heads: torch.Tensor) -> torch.Tensor:
        if not self.grouped:
            return of_key_value_heads
        return of_key_value_heads.repeat_interleave(self.n_heads // self.n_key_value_heads, dim=0)

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
        """What the attention gives, ``[batch, pos, d_model]``, for inputs of its queries, keys and values.

        Computed from the weights as TransformerLens does it, since HuggingFace's module takes one input for all
        three: the same within rounding, without dropout. The hooks of this attention see it.

        Args:
            query_input: ``[batch, pos, d_model]``, or one for each head, ``[batch, pos, head_index, d_model]``:
                normalised already. ``key_input`` and ``value_input`` alike, with the heads of keys and values.
            past_kv_cache_entry: an entry of TransformerLens's key-value cache, to which keys and values are added.
            additive_attention_mask: added to the scores, ``[batch, 1, 1, key_pos]``.
            attention_mask: 1 for tokens, 0 for padding, ``[batch, past + pos]``.
            position_bias: must be None; no family has it.

        Raises:
            ForwardArgumentsError: a ``position_bias``; or more keys than a layer with a window sees, a kind of rotary
                embedding that this does not know, or what else the family does between weights and scores.
        """
        call = AttentionCall(self, past_kv_cache_entry, additive_attention_mask, attention_mask, position_bias)
        return call.run(query_input, key_input, value_input)


class MLP(Component):
    """``W_in`` ``[d_model, d_mlp]``, ``b_in`` ``[d_mlp]``, ``W_out`` ``[d_mlp, d_model]``, ``b_out`` ``[d_model]``.

    A gated MLP has ``W_gate`` ``[d_model, d_mlp]`` too, and ``b_gate`` ``[d_mlp]``, which TransformerLens has not: its
    activation multiplies what ``W_in`` and ``b_in`` give.
    """

    W_gate = View(lambda self, name: self._half(matrix_of(self.gate, name), 0), "gate")
    W_in = View(lambda self, name: self._half(matrix_of(self.input, name), 1), "input")
    W_out = View(lambda self, name: matrix_of(self.output, name), "output", factor="_factor")
    b_gate = View(lambda self, name: self._half(bias_of(self.gate, name), 0), "gate", is_bias=True)
    b_in = View(lambda self, name: self._half(bias_of(self.input, name), 1), "input", is_bias=True)
    b_out = View(lambda self, name: bias_of(self.output, name), "output", is_bias=True, factor="_factor")

    def __init__(
        self, name: str, hook_points: Mapping[str, HookPoint], block: Place, family: Family, drop_in: DropIn
    ) -> None:
        super().__init__(name, hook_points)
        self._block = block
        self._family = family
        self._drop_in = drop_in
        self._fused = family.mlp.gated and drop_in.mlp_gate is None

    @property
    def weights(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of its weights: ``b_gate`` where the model has such a bias."""
        plain = "W_in", "b_in", "W_out", "b_out"
        if not self._family.mlp.gated:
            return plain
        return ("W_gate", *plain) if lacks_bias(self.gate) else ("W_gate", *plain, "b_gate")

    @property
    def module(self) -> Any:
        """HuggingFace's MLP; the block where the MLP is no module of its own."""
        return self._block.inside(self._family.components["mlp"]).module

    @property
    def gate(self) -> Any:
        """The module that projects to what the activation is taken of, in a gated MLP."""
        if not self._family.mlp.gated:
            raise AttributeError(f"{self.name} has no gate: the MLPs of {self._family.name} are not gated")
        return self._block.inside(self._drop_in.mlp_gate or self._drop_in.mlp_in).module

    @property
    def input(self) -> Any:
        """The module that projects to the neurons."""
        return self._block.inside(self._drop_in.mlp_in).module

    @property
    def output(self) -> Any:
        """The module that projects back to the residual stream."""
        return self._block.inside(self._drop_in.mlp_out).module

    @property
    def _factor(self) -> float:
        return factor_of(self._block.model.config, self._drop_in.output_factor)

    def _half(self, projected: torch.Tensor, half: int) -> torch.Tensor:
        return projected.chunk(2, dim=-1)[half] if self._fused else projected

    @property
    def d_mlp(self) -> int | None:
        """How many neurons it has now; None where an unknown module projects to them."""
        d_out = d_out_of(self.input)
        return d_out // 2 if d_out is not None and self._fused else d_out

    def __call__(self, normalized: torch.Tensor) -> torch.Tensor:
        """What the MLP makes of a normalised residual stream ``[batch, pos, d_model]``; its hooks see it."""
        written: torch.Tensor
        if not self._family.components["mlp"]:
            field = self._drop_in.config["act_fn"]
            neurons = self.hook_pre(self.input(normalized))
            written = self.output(self.hook_post(ACT2FN[getattr(self._block.model.config, str(field))](neurons)))
            return written
        written = self.module(normalized)
        return written


class Block(Component):
    """One layer, with ``attn``, ``mlp``, ``ln1`` and ``ln2``. Calling it runs the whole layer.

    Attributes:
        ln1_post, ln2_post: norms behind attention and MLP, in families that have them beside those before.
        parts: all of them by TransformerLens's names, in the order in which they run.
    """

    ln1: Any
    attn: Attention
    ln1_post: Any
    ln2: Any
    mlp: MLP
    ln2_post: Any

    def __init__(
        self, name: str, hook_points: Mapping[str, HookPoint], parts: Mapping[str, Component], run: Callable[..., Any]
    ) -> None:
        super().__init__(name, hook_points)
        self.parts = dict(parts)
        vars(self).update(parts)
        self._run = run

    @property
    def components(self) -> Iterator[Component]:
        """Its parts, and theirs."""
        for part in self.parts.values():
            yield part
            if isinstance(part, Attention):
                yield from part.norms.values()

    def __call__(self, residual: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The residual stream after this layer, for the one before it, ``[batch, pos, d_model]``."""
        index = int(self.name.rpartition(".")[2])
        after: torch.Tensor = self._run(
            residual, start_at_layer=index, stop_at_layer=index + 1, attention_mask=attention_mask
        )
        return after


class Embed(Component):
    """``W_E`` ``[d_vocab, d_model]``, with the factor that the model multiplies its embedding by.

    Attributes:
        ln: the norm behind the embedding, in families that have one; else None.
    """

    weights = ("W_E",)
    W_E = View(lambda self, name: weight_of(self.module, name), factor="_factor")

    def __init__(self, place: Place, drop_in: DropIn) -> None:
        super().__init__("embed", {})
        self._place = place
        self._drop_in = drop_in
        self.ln: RMSNorm | HeadNorms | None = None

    @property
    def module(self) -> Any:
        """HuggingFace's embedding."""
        return self._place.module

    @property
    def _factor(self) -> float:
        return factor_of(self._place.model.config, self._drop_in.embedding_factor)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding ``[batch, pos, d_model]`` of tokens ``[batch, pos]``, as ``hook_embed`` has it."""
        embedding: torch.Tensor = self.module(tokens)
        # In some releases the module multiplies by itself, in others what calls it does.
        if self.ln is not None:
            return self.ln(embedding)
        if self._factor == 1 or type(self.module).forward is not nn.Embedding.forward:
            return embedding
        return embedding * torch.tensor(self._factor, dtype=embedding.dtype)


class PosEmbed(Component):
    """``W_pos`` ``[n_ctx, d_model]``."""

    weights = ("W_pos",)
    W_pos = View(lambda self, name: weight_of(self.module, name)[self._first :])

    def __init__(self, place: Place, first_position: int) -> None:
        super().__init__("pos_embed", {})
        self._place = place
        self._first = first_position

    @property
    def module(self) -> Any:
        """HuggingFace's positional embedding."""
        return self._place.module

    def _at(self, positions: torch.Tensor) -> torch.Tensor:
        # A module with rows before the first position takes a mask, and counts by itself.
        embedding: torch.Tensor = (
            nn.functional.embedding(positions, self.W_pos) if self._first else self.module(positions)
        )
        return embedding

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
            return self._at(positions.expand(tokens.shape[0], -1))
        own = slice(past_kv_pos_offset, past_kv_pos_offset + length)
        embedding = self._at(positions_of(attention_mask)[:, own])
        return torch.where(attention_mask[:, own, None].bool(), embedding, torch.zeros_like(embedding))


class Unembed(Component):
    """``W_U`` ``[d_model, d_vocab]`` and ``b_U`` ``[d_vocab]``: zeros that belong to nothing where there is none.

    Where the model multiplies its logits by a factor, both have it.
    """

    weights = ("W_U", "b_U")
    W_U = View(lambda self, name: matrix_of(self.module, name), factor="_factor")
    b_U = View(lambda self, name: bias_of(self.module, name), is_bias=True, factor="_factor")

    def __init__(self, place: OutputEmbeddings, drop_in: DropIn) -> None:
        super().__init__("unembed", {})
        self._place = place
        self._drop_in = drop_in

    @property
    def module(self) -> Any:
        """HuggingFace's module that gives the logits."""
        return self._place.module

    @property
    def _factor(self) -> float:
        return factor_of(self._place.model.config, self._drop_in.logit_factor)

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, pos, d_vocab]`` of a normalised residual stream ``[batch, pos, d_model]``, before a cap."""
        logits: torch.Tensor = self.module(residual)
        return logits if self._factor == 1 else logits * self._factor


def clip_of(family: Family, config: Any) -> float | None:
    """What queries, keys and values are clipped to; None: they are not."""
    clipped = family.attention.clipped
    limit: float | None = None if clipped is None else getattr(config, clipped.removeprefix("config."))
    return limit


def _number(window: Any) -> int | None:
    return None if window is None else int(window)


def factor_of(config: Any, factor: tuple[str, float] | None) -> float:
    """A power of a field of a configuration, by name and exponent; 1 for None."""
    if factor is None:
        return 1.0
    name, exponent = factor
    return float(getattr(config, name) ** exponent)
