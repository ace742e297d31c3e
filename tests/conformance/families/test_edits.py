"""An edit does to a hooked model what the same edit does to a plain one, where torch's own hooks can make it.

Those know nothing of this package: they see what goes into HuggingFace's modules and what comes out. What lies between
projections and the output of attention is recomputed from the activations that an edit left.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.families.contract import contract
from tests.conformance.families.test_values import blocks_of, roles
from tests.kinds import Kind, kinds
from tests.models import N_HEADS, N_LAYERS, Case, make_model, make_tokens
from tests.recording import assert_close, hooked, noise_like, recorded

CLOSE = {"rtol": 1e-5, "atol": 1e-5}

GIVEN = {
    "q": ("attn.hook_q",),
    "k": ("attn.hook_k",),
    "v": ("attn.hook_v",),
    "qkv": ("attn.hook_q", "attn.hook_k", "attn.hook_v"),
    "gate": ("mlp.hook_pre",),
    "up": ("mlp.hook_pre_linear",),
    "in": ("mlp.hook_pre",),
    "gate_up": ("mlp.hook_pre", "mlp.hook_pre_linear"),
    "ln1_post": ("hook_attn_out",),
    "ln2_post": ("hook_mlp_out",),
    "": ("hook_resid_post",),
}
"""What hook points show of what a module of a block gives, one beside the other; the block itself is ''."""

TAKEN = {"out": "attn.hook_z", "down": "mlp.hook_post", "": "hook_resid_pre"}
"""What hook points show of what it takes."""


@contextmanager
def changed(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor], *, taken: bool) -> Iterator[None]:
    """With a change of what a module takes first, or of what it gives first."""

    def before(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            return (change(arguments[0]), *arguments[1:]), named
        first, *_rest = named
        return arguments, {**named, first: change(named[first])}

    def after(_: Any, arguments: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    if taken:
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def places(form: Kind, layer: int) -> Iterator[tuple[str, str, bool, slice]]:
    """Hook point, module, whether it is of what the module takes, and which columns of that it shows."""
    modules = roles(form, layer)
    if form.fused != "part":
        modules.pop("qkv", None)  # columns of one head are not beside those of the next
    widths = {"q": N_HEADS * form.d_head, "k": form.key_value_heads * form.d_head}
    for role, path in {**modules, "": ""}.items():
        if role in TAKEN:
            yield TAKEN[role], path, True, slice(None)
        begin = 0
        for name in GIVEN.get(role, ()):
            width = widths.get(name[-1], widths["k"]) if name.startswith("attn") else form.d_mlp
            end = begin + width
            yield name, path, False, slice(begin, end) if len(GIVEN[role]) > 1 else slice(None)
            begin = end
    if form.norms == "after":
        yield "hook_attn_out", form.modules["ln1"], False, slice(None)
        yield "hook_mlp_out", form.modules["ln2"], False, slice(None)
    if form.norm == "layer" and not form.shared_norm:
        yield "ln1.hook_normalized", form.modules["ln1"], False, slice(None)
        yield "ln2.hook_normalized", form.modules["ln2"], False, slice(None)


@torch.no_grad()
def test_an_edit_is_what_torch_makes_of_it_in_a_plain_model(kind: str) -> None:
    form, tokens = kinds()[kind], make_tokens()
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    unedited = plain(tokens).logits
    points = mishformer_lens.instrument(model).hook_points
    for layer, block in enumerate(blocks_of(plain, form)):
        for name, path, taken, columns in places(form, layer):

            def change(value: torch.Tensor, columns: slice = columns) -> torch.Tensor:
                result = value.clone()
                result[..., columns] += noise_like(value[..., columns])
                return result

            with changed(block.get_submodule(path), change, taken=taken):
                expected = plain(tokens).logits
            with hooked(points, {f"blocks.{layer}.{name}": lambda value, hook: value + noise_like(value)}):
                found = model(tokens).logits
            assert not torch.equal(expected, unedited), f"{name} of {layer} is not felt"
            assert torch.equal(found, expected), f"{name} of {layer}"


INSIDE = ("attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_v")


@pytest.mark.parametrize("inside", INSIDE)
@torch.no_grad()
def test_attention_goes_on_from_what_an_edit_leaves(kind: str, inside: str) -> None:
    form = kinds()[kind]
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    for layer in range(N_LAYERS):
        names = [name for name in contract(kind) if name.startswith(f"blocks.{layer}.attn.")]
        edited = f"blocks.{layer}.{inside}"
        if edited not in names:
            edited = edited.replace("rot_", "")
        edits = {edited: lambda value, hook: value + noise_like(value)}
        with hooked(points, edits), recorded(points, names) as values:
            model(make_tokens())
        at = {name.removeprefix(f"blocks.{layer}.attn."): value for name, (value,) in values.items()}
        query, key, value = (at.get(f"hook_rot_{each}", at[f"hook_{each}"]) for each in "qkv")
        clip = form.clipped or form.fields.get("clip_qkv", float("inf"))
        key, value = (
            each.repeat_interleave(N_HEADS // form.key_value_heads, 2) for each in (key, value.clamp(-clip, clip))
        )
        scores, pattern = at["hook_attn_scores"], at["hook_pattern"]
        # What is added by position has a test of its own (test_alibi.py).
        if not inside.endswith("scores") and not form.alibi:
            products = torch.einsum("bqhd,bkhd->bhqk", query, key) * form.scaling
            if form.softcap is not None:
                products = form.softcap * torch.tanh(products / form.softcap)
            visible = scores > -1e4
            assert_close(scores[visible], products[visible], f"scores after {edited}", **CLOSE)
        # Sinks take a part of the pattern: they have a test of their own.
        if not inside.endswith("pattern") and not form.sinks:
            assert_close(pattern, scores.softmax(-1), f"pattern after {edited}", **CLOSE)
        assert_close(at["hook_z"], torch.einsum("bhqk,bkhd->bqhd", pattern, value), f"z after {edited}", **CLOSE)
