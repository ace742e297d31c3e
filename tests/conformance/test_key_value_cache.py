"""Hooks during decoding: what is in the key-value cache, and what an edit puts there."""

from typing import Any

import torch

import mishformer_lens
from tests import capabilities
from tests.conformance.contract import unflagged
from tests.models import BATCH, D_HEAD, N_HEADS, POS, Case, make_model, make_tokens
from tests.recording import assert_close, assert_same, hooked, recorded

FIRST = 4


def double(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    return activation * 2


@torch.no_grad()
def decode(model: Any) -> torch.Tensor:
    """Logits of the last positions, computed from a cache of the first ones."""
    first = model(make_tokens()[:, :FIRST], use_cache=True)
    logits: torch.Tensor = model(make_tokens()[:, FIRST:], **capabilities.past(model, first), use_cache=True).logits
    return logits


def test_hooks_see_the_new_positions_and_rot_k_all_keys(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    with torch.no_grad():
        first = model(make_tokens()[:, :FIRST], use_cache=True)
        with recorded(points, unflagged(case.kind)) as values:
            model(make_tokens()[:, FIRST:], **capabilities.past(model, first), use_cache=True)
    new = POS - FIRST
    for name, (value,) in values.items():
        if name.endswith(("hook_attn_scores", "hook_pattern")):
            assert tuple(value.shape) == (BATCH, N_HEADS, new, POS)
        elif name.endswith("hook_rot_k"):
            assert tuple(value.shape) == (BATCH, POS, N_HEADS, D_HEAD)
        else:
            assert tuple(value.shape[:2]) == (BATCH, new), name


def test_activations_while_decoding_are_those_of_the_whole_text(float32_case: Case) -> None:
    model = make_model(float32_case)
    points = mishformer_lens.instrument(model).hook_points
    names = unflagged(float32_case.kind)
    with torch.no_grad():
        with recorded(points, names) as whole:
            model(make_tokens())
        first = model(make_tokens()[:, :FIRST], use_cache=True)
        with recorded(points, names) as rest:
            model(make_tokens()[:, FIRST:], **capabilities.past(model, first), use_cache=True)
    for name in names:
        (found,), (expected,) = rest[name], whole[name]
        if name.endswith(("hook_attn_scores", "hook_pattern")):
            expected = expected[:, :, FIRST:].clamp(min=-1e30)
        elif not name.endswith("hook_rot_k"):
            expected = expected[:, FIRST:]
        assert_close(found.clamp(min=-1e30), expected, name, rtol=1e-4, atol=1e-5)


def test_an_edit_of_keys_and_values_goes_into_the_cache(case: Case) -> None:
    for name in ("blocks.0.attn.hook_k", "blocks.0.attn.hook_v"):
        model = make_model(case)
        points = mishformer_lens.instrument(model).hook_points
        plain = decode(model)
        with torch.no_grad():
            with hooked(points, {name: double}):
                first = model(make_tokens()[:, :FIRST], use_cache=True)
            second = model(make_tokens()[:, FIRST:], **capabilities.past(model, first), use_cache=True)
        # No hook is on in the second pass: the edit reaches it by way of the cache alone.
        assert not torch.equal(second.logits, plain), name


def test_an_edit_of_rotated_keys_acts_on_its_own_pass_only(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    name = "blocks.1.attn.hook_rot_k"
    if kind == "gpt2":
        assert name not in points
        return
    plain = decode(model)

    def in_place(activation: torch.Tensor, hook: Any) -> None:
        activation.mul_(2)

    for edit in (double, in_place):
        with torch.no_grad():
            unedited = model(make_tokens()[:, :FIRST], use_cache=True)
            with hooked(points, {name: edit}):
                first = model(make_tokens()[:, :FIRST], use_cache=True)
            assert not torch.equal(first.logits, unedited.logits)
            # The last block's keys: what went before is the same, so the cache is.
            second = model(make_tokens()[:, FIRST:], **capabilities.past(model, first), use_cache=True)
        assert_same(second.logits, plain)


def test_an_edit_acts_in_every_step_of_a_generation(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    steps: list[int] = []

    def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        steps.append(activation.shape[1])
        return torch.zeros_like(activation)

    arguments = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    tokens = make_tokens()
    with hooked(points, {"blocks.1.hook_mlp_out": edit}):
        with_cache = model.generate(tokens, attention_mask=torch.ones_like(tokens), **arguments)
        assert steps == [POS, 1, 1, 1, 1]
        if case.dtype == torch.float32:
            without = model.generate(tokens, attention_mask=torch.ones_like(tokens), use_cache=False, **arguments)
            assert torch.equal(without, with_cache)
