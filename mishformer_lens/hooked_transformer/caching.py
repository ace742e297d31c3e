"""Hooks by name, and caches of activations."""

# ruff: noqa: A002 - the arguments' names are TransformerLens's

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from mishformer_lens.errors import ForwardArgumentsError, NamesFilterError, NotAHookPointError, UnknownHookError
from mishformer_lens.hooked_transformer.base import HookedTransformerBase
from mishformer_lens.hooked_transformer.transformer_lens_compat import ActivationCache, utils
from mishformer_lens.hooks import HookPoint
from mishformer_lens.suggestions import did_you_mean

NamesFilter = Callable[[str], bool] | Sequence[str] | str | None

# The position axis of a batched activation is the second, but for these.
_QUERY_POSITION_THIRD = ("attn.hook_attn_scores", "attn.hook_pattern")


class Named(dict[str, Any]):
    """Modules by TransformerLens name; an unknown name is an :class:`UnknownHookError` with a suggestion."""

    def __missing__(self, name: str) -> Any:
        raise UnknownHookError(
            f"this model has no hook point {name!r}. {did_you_mean(name, self)}All names are in model.hook_dict."
        )


class Caching(HookedTransformerBase):
    """What differs from TransformerLens's ``HookedRootModule``: hook points that are no registered modules, and flags.

    A hook point that TransformerLens keeps behind a ``use_*`` flag works without it when it is asked for by name, or by
    a filter that picks nothing else. Where a filter picks others too, or there is none, the flag decides, so that a
    cache of everything holds what TransformerLens's would.
    """

    _flags: dict[str, str]

    def setup(self) -> None:
        """Make ``hook_dict`` and ``mod_dict``, by TransformerLens's names."""
        points = self.instrumentation.hook_points
        self._flags = {spec.name: spec.flag for spec in self.instrumentation.family.block_hooks if spec.flag}
        self.hook_dict = Named(points)
        parts: dict[str, Any] = {"embed": self.embed, "ln_final": self.ln_final, "unembed": self.unembed}
        if self.cfg.positional_embedding_type == "standard":
            parts["pos_embed"] = self.pos_embed
        parts["blocks"] = self.blocks
        for block in self.blocks:
            parts |= {each.name: each for each in (block, *block.components)}
        self.mod_dict = Named({**parts, **points})
        for name, point in points.items():
            if "." not in name:
                self.__dict__[name] = point

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copy has the hooks, too; what was pickled has none.
        if not any(point.may_edit() for point in self.hook_dict.values()):
            self.is_caching = False
            self.context_level = 0

    def check_hooks_to_add(
        self,
        hook_point: HookPoint,
        hook_point_name: str,
        hook: Callable[..., Any],
        dir: str = "fwd",
        is_permanent: bool = False,
        prepend: bool = False,
    ) -> None:
        """Nothing to check: every hook point computes what its hook needs. Override it to add checks of your own.

        TransformerLens refuses here a hook whose ``use_*`` flag is off.
        """

    def _selected(self, names: NamesFilter) -> Sequence[str]:
        if isinstance(names, str):
            names = [names]
        if isinstance(names, Sequence):
            for name in names:
                self._check_name(name)
            wanted = frozenset(names)
            return [name for name in self.hook_dict if name in wanted]
        if not (names is None or callable(names)):
            raise NamesFilterError(
                f"names_filter is a {type(names).__name__}; it must be a hook name, a list of them, a function or None."
            )
        cfg = self.cfg
        off = frozenset(name for name, flag in self._flags.items() if not getattr(cfg, flag))
        live, unflagged = _live_names(tuple(self.hook_dict), self._n_layers(), off)
        if names is None:
            return unflagged or live
        chosen = [name for name in live if names(name)]
        return [name for name in chosen if _name_in_layer(name) not in off] or chosen

    def _check_name(self, name: str) -> None:
        if name in self.mod_dict and name not in self.hook_dict:
            raise NotAHookPointError(
                f"{name!r} is a part of the model and no hook point. Its hook points: "
                f"{', '.join(each for each in self.hook_dict if each.startswith(f'{name}.')) or 'none'}."
            )
        self.hook_dict[name]

    def _enable_hooks_for_points(
        self,
        hook_points: Any,  # noqa: ARG002 - all of them, always
        enabled: Callable[[str], bool],
        hook: Callable[..., Any],
        dir: str,
    ) -> None:
        for name in self._selected(enabled):
            self.hook_dict[name].add_hook(hook, dir=dir, level=self.context_level)

    def add_hook(
        self,
        name: str | Callable[[str], bool],
        hook: Callable[..., Any],
        dir: str = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Add ``hook(activation, hook=hook_point)`` to a hook point, or to all whose names a function accepts.

        Raises:
            UnknownHookError: there is no such hook point.
        """
        for each in self._selected([name] if isinstance(name, str) else name):
            self.check_and_add_hook(
                self.hook_dict[each], each, hook, dir=dir, is_permanent=is_permanent, level=level, prepend=prepend
            )

    def get_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, torch.Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, torch.Tensor], list[tuple[str, Any]], list[tuple[str, Any]]]:
        """A cache that is empty yet, and the forward and backward hooks that would fill it.

        Raises:
            UnknownHookError: ``names_filter`` names a hook point that there is not.
        """
        cache = {} if cache is None else cache
        self.is_caching = True
        store = functools.partial(
            _store,
            cache=cache,
            device=device,
            remove_batch_dim=remove_batch_dim,
            pos_slice=None if pos_slice is None else utils.Slice.unwrap(pos_slice),
        )
        names = self._selected(names_filter)
        backward = functools.partial(store, suffix="_grad")
        return cache, [(name, store) for name in names], [(name, backward) for name in names] if incl_bwd else []

    def add_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Add hooks that fill the returned cache whenever the model runs, until ``reset_hooks()``.

        These are hooks that may edit, as any: where one is on ``hook_attn_in`` or on a split input, ``ln1`` works by
        heads, ``[batch, pos, head_index, d_model]``. :meth:`run_with_cache` only looks.
        """
        cache, forward, backward = self.get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache)
        for name, hook in forward:
            self.hook_dict[name].add_hook(hook, "fwd")
        for name, hook in backward:
            self.hook_dict[name].add_hook(hook, "bwd")
        return cache

    def run_with_cache(
        self,
        *model_args: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: NamesFilter = None,
        device: torch.device | str | None = None,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Any = None,
        **model_kwargs: Any,
    ) -> tuple[Any, Any]:
        """Run the model and return its output with a cache of its activations.

        It looks on, so ``ln1.hook_normalized`` is ``[batch, pos, d_model]`` whatever the flags. It is ``[batch, pos,
        head_index, d_model]`` where ``hook_attn_in`` or a split input has a hook that may edit: one of the caller's, or
        one that ``incl_bwd`` or ``reset_hooks_end=False`` puts there.

        Args:
            return_cache_object: a TransformerLens ``ActivationCache``; otherwise a plain dictionary.
            remove_batch_dim: leave out the batch axis, which must be 1.
            names_filter: what to cache: a hook name, a list of them, a function of the name, or None for all that
                TransformerLens would cache under the current flags.
            device: where to keep the activations; by default where they are.
            incl_bwd: also run ``backward()`` on the output and cache gradients, under the names with ``_grad``.
            pos_slice: the positions to keep, anything that TransformerLens's ``Slice`` takes.
            reset_hooks_end, clear_contexts: as in ``run_with_hooks``.

        Raises:
            UnknownHookError: ``names_filter`` names a hook point that there is not.
        """
        cache, forward, backward = self.get_caching_hooks(
            names_filter, incl_bwd, device, remove_batch_dim, pos_slice=pos_slice
        )
        # Observers cost a fraction of hooks; but hooks are what stays on the model where it is not to be reset.
        hooks, observers = ([], dict(forward)) if reset_hooks_end else (forward, {})
        with contextlib.ExitStack() as context:
            context.callback(setattr, self, "is_caching", not reset_hooks_end)
            if hooks or backward or clear_contexts:
                context.enter_context(self.hooks(hooks, backward, reset_hooks_end, clear_contexts))
            context.enter_context(self.instrumentation.observing(observers))
            output = self(*model_args, **model_kwargs)
            if incl_bwd:
                output.backward()
        if return_cache_object:
            return output, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim)
        return output, cache

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether a cache of everything holds ``hook_result``."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether a cache of everything holds ``hook_q_input``, ``hook_k_input`` and ``hook_v_input``.

        TransformerLens computes by heads while it is set. Here that depends on hooks alone, see :meth:`run_with_cache`.
        """
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Whether a cache of everything holds ``hook_mlp_in``."""
        self.cfg.use_hook_mlp_in = use_hook_mlp_in

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Whether a cache of everything holds ``hook_attn_in``."""
        self.cfg.use_attn_in = use_attn_in

    def set_ungroup_grouped_query_attention(self, ungroup_grouped_query_attention: bool) -> None:
        """Set the field of ``cfg``, in models whose keys and values have as many heads as queries.

        Raises:
            ForwardArgumentsError: they have fewer. HuggingFace computes with these, and so ``hook_k`` and ``hook_v``
                have no more.
        """
        heads = self.cfg.n_key_value_heads
        if ungroup_grouped_query_attention and heads is not None:
            raise ForwardArgumentsError(
                f"keys and values have {heads} heads here, as in HuggingFace's computation, and hook points of "
                f"{self.cfg.n_heads} would be of no use to it: hooks on hook_k and hook_v get [batch, pos, {heads}, "
                f"{self.cfg.d_head}], and each head serves {self.cfg.n_heads // heads} of queries. To act on one head "
                "of queries alone use hook_q, hook_pattern or hook_z."
            )
        self.cfg.ungroup_grouped_query_attention = ungroup_grouped_query_attention


@functools.lru_cache(maxsize=64)
def _live_names(names: tuple[str, ...], n_layers: int, off: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """Those of ``names`` that are in layers that there are, and of these the ones that are not ``off``.

    Args:
        n_layers: how many layers there are; some may have been cut off.
        off: names of hook points in their layers.
    """
    live = tuple(name for name in names if not name.startswith("blocks.") or int(name.split(".")[1]) < n_layers)
    return live, tuple(name for name in live if _name_in_layer(name) not in off)


def _name_in_layer(name: str) -> str:
    return name.split(".", 2)[-1]


def _store(
    activation: torch.Tensor,
    hook: nn.Module,
    cache: dict[str, torch.Tensor],
    device: torch.device | str | None,
    remove_batch_dim: bool,
    pos_slice: Any,
    suffix: str = "",
) -> None:
    name = str(hook.name)
    # One more tensor for each activation is a third of what keeping it costs.
    kept = activation.detach() if activation.requires_grad else activation
    if device is not None:
        kept = kept.to(device)
    if pos_slice is not None:
        kept = pos_slice.apply(kept, dim=2 if name.endswith(_QUERY_POSITION_THIRD) else 1)
    cache[name + suffix] = kept[0] if remove_batch_dim else kept
