"""Activations that HuggingFace does not compute by itself. They are computed while somebody's hook is on them.

Patched code calls these objects; each does exactly what the release's own code did as long as its hooks are idle. An
observer gets what it wants from what was computed, or from the weights: the modules run as they do without it.
"""

import dataclasses
import operator
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from transformers.pytorch_utils import Conv1D

from mishformer_lens import fused
from mishformer_lens.errors import HeadResultsError
from mishformer_lens.hooks import HookGroup, HookPoint
from mishformer_lens.patchers import Family

if TYPE_CHECKING:
    from mishformer_lens.lending import Place


class HeadResults:
    """``hook_result`` ``[batch, pos, head_index, d_model]``: what each head adds to the residual stream.

    The output bias is not part of it.

    Args:
        attention: where the live attention stands, whose heads count.
    """

    def __init__(self, hook_result: HookPoint, attention: "Place", family: Family) -> None:
        self.hook_result = hook_result
        self.attention = attention
        self.family = family

    def project(self, projection: nn.Module, z: torch.Tensor) -> torch.Tensor:
        """``projection(z)`` for ``z`` ``[batch, pos, head_index * d_head]``, with what hooks change of a head's part.

        ``projection`` runs once, as it does without hooks.

        Raises:
            HeadResultsError: what each head adds cannot be told from ``projection``.
        """
        if not (self.hook_result.listening and self.hook_result.is_active()):
            return projection(z)  # type: ignore[no-any-return]
        d_head = head_size(self.attention, self.family)
        weight = _weight(projection, z)
        if weight is None:
            output, results = _linear_parts(projection, z, d_head)
        else:
            output = projection(z)
            by_head = weight.unflatten(0, (-1, d_head))
            results = torch.einsum("bphd,hdm->bphm", z.unflatten(-1, (-1, d_head)), by_head)
        edited = self.hook_result.changed(results)
        # Exact where nothing was edited, for subtracting a positive zero changes no bit.
        return output if edited is None else output - (results - edited).sum(-2)


def _weight(projection: nn.Module, z: torch.Tensor) -> torch.Tensor | None:
    """The weight ``[in, out]`` of a projection that is a plain product with it and a sum; else None."""
    cls: Any = type(projection)
    if "forward" in vars(projection) or nn.utils.parametrize.is_parametrized(projection):
        return None
    if not (
        (isinstance(projection, nn.Linear) and cls.forward is nn.Linear.forward)
        or (isinstance(projection, Conv1D) and cls.forward is Conv1D.forward)
    ):
        return None
    weight = projection.weight
    # What torch.fx traces with stands for a weight that is there; its sizes and its device are not.
    traced = isinstance(weight, fx.Proxy)
    # Quantized, sharded and offloaded weights have types, shapes or devices of their own; some have no transpose.
    plain = type(weight) in (nn.Parameter, torch.Tensor) or torch.compiler.is_compiling()
    if not (traced or (plain and weight.dim() == 2 and weight.is_floating_point() and weight.device == z.device)):
        return None
    weight = weight.T if isinstance(projection, nn.Linear) else weight
    return weight if traced or weight.shape[0] == z.shape[-1] else None


def _linear_parts(projection: nn.Module, z: torch.Tensor, d_head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``projection(z)``, run once, and what each head adds to it, from the derivative of that very run.

    So random numbers that were drawn in it, and weights that exist in no readable form, count as they did.
    """
    name = f"{type(projection).__module__}.{type(projection).__qualname__}"
    if any(part._backward_hooks or part._backward_pre_hooks for part in projection.modules()):
        raise HeadResultsError(
            f"hook_result has a hook, and what each head adds can be told from {name} by its derivative alone, which "
            "would run the backward hooks that are on it. Take these off, or the hook on hook_result."
        )
    with_gradient = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        source = z.clone() if z.is_inference() else z
        source = source if source.requires_grad else source.detach().requires_grad_()
        output: torch.Tensor = projection(source)
        try:
            results = _products(output, source, d_head, with_gradient)
        except RuntimeError as error:
            raise HeadResultsError(
                f"hook_result has a hook, and what each head adds cannot be told from {name}: its weight is in no form "
                f"that can be read, and it has no derivative ({error}). Take the hook off, or put a module with a "
                "readable weight in its place."
            ) from error
    if results is None:
        raise HeadResultsError(
            f"hook_result has a hook, and {name} is not linear: no head adds a part of its own. Take the hook off."
        )
    return (output, results) if with_gradient else (output.detach(), results.detach())


def _products(output: torch.Tensor, z: torch.Tensor, d_head: int, with_gradient: bool) -> torch.Tensor | None:
    """Every head's part of ``z`` times the derivative of ``output`` by ``z``; None if that depends on ``z``."""
    direction = torch.zeros_like(output, requires_grad=True)
    # Linear in the direction, so that its own derivative is the product with the transposed matrix's transpose.
    (pulled,) = torch.autograd.grad(output, z, direction, create_graph=True)
    if torch.autograd.grad(pulled, z, pulled.detach(), retain_graph=True, allow_unused=True)[0] is not None:
        return None
    products = []
    for begin in range(0, z.shape[-1], d_head):
        alone = torch.zeros_like(z)
        alone[..., begin : begin + d_head] = z[..., begin : begin + d_head]
        (product,) = torch.autograd.grad(pulled, direction, alone, retain_graph=True, create_graph=with_gradient)
        products.append(product)
    return torch.stack(products, -2)


@dataclasses.dataclass(eq=False)
class _HandedOver:
    """What a block hands over to its attention: the inputs of queries, keys and values, each until it is taken.

    Attributes:
        owner: tells the helper that the two share.
        residual: what the block calls its attention with meanwhile.
    """

    owner: object
    residual: torch.Tensor
    inputs: list[torch.Tensor | None]


class _Pending(threading.local):
    """What blocks handed over and no attention took yet, in the own thread: a hook may run another model."""

    handed_over: tuple[_HandedOver, ...] = ()


_pending = _Pending()


class AttentionInputs(HookGroup):
    """``hook_attn_in``, ``hook_q_input``, ``hook_k_input`` and ``hook_v_input``.

    They are copies of the residual stream, one per head, before the layer norm where there is one:
    ``[batch, pos, head_index, d_model]``. The block and its attention share one of these: the block hands over the
    residual stream, the attention projects it.

    Args:
        attention: where the live attention stands, whose heads count.
    """

    def __init__(self, hooks: Mapping[str, HookPoint], attention: "Place", family: Family) -> None:
        # No copy per head serves all three where keys and values have fewer heads than queries.
        self.hook_attn_in = hooks.get("hook_attn_in")
        self.split = HookGroup(hooks["hook_q_input"], hooks["hook_k_input"], hooks["hook_v_input"])
        super().__init__(*([] if self.hook_attn_in is None else [self.hook_attn_in]), *self.split.hooks)
        self.projected = hooks["attn.hook_q"], hooks["attn.hook_k"], hooks["attn.hook_v"]
        self.attention = attention
        self.family = family
        # Not itself: what a broken-off pass leaves behind keeps no model alive.
        self._token = object()

    def _edits(self) -> bool:
        return self.listening and any(hook.may_edit() and hook.is_active() for hook in self.hooks)

    def normalize(self, layer_norm: Callable[[torch.Tensor], torch.Tensor], residual: torch.Tensor) -> torch.Tensor:
        """``layer_norm(residual)``; where hooks may edit, normalise each head's copy, for the projections."""
        if not (self.listening and self.is_active()):
            return layer_norm(residual)
        heads = number_of_heads(self.attention, self.family)
        if not self._edits():
            copies = {number: _copies(residual, number) for number in set(heads)}
            numbers = heads if self.hook_attn_in is None else (heads[0], *heads)
            for hook, number in zip(self.hooks, numbers, strict=True):
                if hook.is_active():
                    hook(copies[number])
            return layer_norm(residual)
        shared = None if self.hook_attn_in is None else self.hook_attn_in(_copies(residual, heads[0]))
        if shared is not None and not self.split.is_active():
            inputs = [layer_norm(shared)] * 3
        else:
            inputs = [
                layer_norm(hook(_copies(residual, number)) if shared is None else hook.copied(shared))
                for hook, number in zip(self.split.hooks, heads, strict=True)
            ]
        self._hand_over(residual, [*inputs])
        return residual

    def _hand_over(self, residual: torch.Tensor, inputs: list[torch.Tensor | None]) -> None:
        # Where a pass broke off before, something is left.
        others = tuple(each for each in _pending.handed_over if each.owner is not self._token)
        _pending.handed_over = (*others, _HandedOver(self._token, residual, inputs))

    def _handed_over(self, normalized: torch.Tensor) -> _HandedOver | None:
        """What the block handed over to an attention that is called with ``normalized``.

        The very tensor tells, whatever hooks there are by now: they may have been taken off in the pass. Something in
        between may have made another tensor of it, as torch's backward hooks on modules do; then the hooks tell.
        """
        for each in _pending.handed_over:
            if each.owner is self._token and (each.residual is normalized or self._edits()):
                return each
        # The attention was called by itself, and these hook points are its block's; or another thread added the hook
        # when this pass was past the block's beginning.
        return None

    def _take(self, handed_over: _HandedOver, part: int) -> torch.Tensor | None:
        own, handed_over.inputs[part] = handed_over.inputs[part], None
        if handed_over.inputs == [None] * 3:
            _pending.handed_over = tuple(each for each in _pending.handed_over if each is not handed_over)
        return own

    def take(self, residual: torch.Tensor) -> torch.Tensor:
        """As :meth:`normalize`, where no norm stands before attention."""
        return self.normalize(_itself, residual)

    def query(self, projection: nn.Module, normalized: torch.Tensor) -> torch.Tensor:
        """``projection(normalized)``, ``[batch, pos, head_index * d_head]``, as the hooks on queries leave it.

        Raises:
            HeadResultsError: the projection gives something else than heads' vectors.
        """
        return self._project(0, projection, normalized)

    def key(self, projection: nn.Module, normalized: torch.Tensor) -> torch.Tensor:
        """As :meth:`query`, for keys."""
        return self._project(1, projection, normalized)

    def value(self, projection: nn.Module, normalized: torch.Tensor) -> torch.Tensor:
        """As :meth:`query`, for values."""
        return self._project(2, projection, normalized)

    def _project(self, part: int, projection: nn.Module, normalized: torch.Tensor) -> torch.Tensor:
        handed_over = self._handed_over(normalized)
        own = None if handed_over is None else self._take(handed_over, part)
        hook = self.projected[part]
        if own is None:
            projected: torch.Tensor = projection(normalized)
        else:
            projected = self._own_heads(projection(own)).flatten(-2)
        if not hook.listening:
            return projected
        return hook.joined(projected, head_size(self.attention, self.family), copy=self._clips())

    def _clips(self) -> bool:
        """Whether the attention changes in place what its projections give."""
        clipped = self.family.attention.clipped
        return clipped is not None and operator.attrgetter(clipped)(self.attention.module) is not None

    def _own_heads(self, projected: torch.Tensor) -> torch.Tensor:
        """``[batch, pos, head_index, d_head]``, each head from its own input."""
        heads, width = projected.shape[-2], projected.shape[-2] * head_size(self.attention, self.family)
        if projected.shape[-1] != width:
            raise self._odd_width(projected, width)
        return torch.diagonal(projected.unflatten(-1, (heads, -1)), dim1=2, dim2=3).movedim(-1, 2)

    def project(self, projection: nn.Module, normalized: torch.Tensor) -> torch.Tensor:
        """``projection(normalized)``; where hooks may edit, from what :meth:`normalize` kept.

        Either way all heads' queries, keys and values, as the projection lays them out: ``[batch, pos, …]``.

        Raises:
            HeadResultsError: the projection gives something else than heads' queries, keys and values.
        """
        handed_over = self._handed_over(normalized)
        if handed_over is None:
            return projection(normalized)  # type: ignore[no-any-return]
        inputs = [self._take(handed_over, part) for part in range(3)]
        outputs: list[torch.Tensor] = []
        for index, each in enumerate(inputs):
            outputs.append(outputs[0] if index and each is inputs[0] else projection(each))
        parts = [self._part(each, part) for part, each in enumerate(outputs)]
        return fused.joined(parts, self.family.attention.qkv_layout)

    def _part(self, projected: torch.Tensor, part: int) -> torch.Tensor:
        """Query, key or value ``[batch, pos, head_index, d_head]``, each head from its own input."""
        heads, d_head = number_of_heads(self.attention, self.family), head_size(self.attention, self.family)
        if projected.shape[-1] != sum(heads) * d_head:
            raise self._odd_width(projected, sum(heads) * d_head)
        split = fused.part_of(projected, part, self.family.attention.qkv_layout, heads, d_head)
        return torch.diagonal(split, dim1=2, dim2=3).movedim(-1, 2)

    def _odd_width(self, projected: torch.Tensor, width: int) -> HeadResultsError:
        return HeadResultsError(
            f"a projection of queries, keys and values gives {projected.shape[-1]} numbers, where "
            f"{projected.shape[-2]} heads have {width}. Take the hooks off "
            f"{', '.join(str(hook.name) for hook in self.hooks)}."
        )


def _itself(residual: torch.Tensor) -> torch.Tensor:
    return residual


def _copies(residual: torch.Tensor, n_heads: int) -> torch.Tensor:
    # Not einops, which refuses what torch.fx traces with.
    return residual.unsqueeze(2).expand(-1, -1, n_heads, -1).clone()


def head_size(attention: "Place", family: Family) -> int:
    """The width of a head of the live attention."""
    return int(getattr(attention.module, family.attention.head_size))


def number_of_heads(attention: "Place", family: Family) -> tuple[int, int, int]:
    """How many heads of queries, keys and values the live attention has."""
    module: Any = attention.module
    n_heads, n_key_value_heads = family.attention.n_heads, family.attention.n_key_value_heads
    if n_heads is None:
        number = int(module.config.hidden_size) // head_size(attention, family)
    else:
        number = int(operator.attrgetter(n_heads)(module))
    others = number if n_key_value_heads is None else int(operator.attrgetter(n_key_value_heads)(module))
    return number, others, others
