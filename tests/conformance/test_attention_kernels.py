"""Attention kernels that hold no scores: hooks on scores and patterns make one layer eager, with the right mask."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning
from tests import capabilities
from tests.conformance import stand_in_kernel
from tests.conformance.conftest import cases
from tests.conformance.contract import shape, unflagged
from tests.models import N_LAYERS, Case, left_padding, make_model, make_tokens, right_padding
from tests.recording import assert_close, assert_same, hooked, noise_like, recorded

FLASH = cases("flash_attention_2", dtypes=(torch.float32,))
FUSED = cases("sdpa", "flash_attention_2", dtypes=(torch.float32,))
FLEX = cases("flex_attention", dtypes=(torch.float32,), kinds=("gpt_neox",))
MASKS: dict[str, Callable[[], torch.Tensor | None]] = {
    "no mask": lambda: None,
    "all visible": lambda: torch.ones_like(make_tokens()),
    "left padding": left_padding,
    "right padding": right_padding,
}
SCORES = ("hook_attn_scores", "hook_pattern")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def build(case: Case) -> Any:
    """A model whose parameters need no gradient, which flex attention on the CPU has none for."""
    return stand_in_kernel.make(case).requires_grad_(False)


def visible(mask: torch.Tensor | None, value: torch.Tensor, axis: int) -> torch.Tensor:
    """The rows of an activation that belong to real tokens."""
    if mask is None:
        return value
    return value.movedim(axis, 1)[mask.bool()]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", FUSED)
def test_idle_and_observed_identity(case: Case, mask: Callable[[], torch.Tensor | None]) -> None:
    plain, model = build(case), build(case)
    points = mishformer_lens.instrument(model).hook_points
    expected = plain(make_tokens(), attention_mask=mask(), output_hidden_states=True)
    assert_same(model(make_tokens(), attention_mask=mask(), output_hidden_states=True), expected)
    names = [name for name in unflagged(case.kind) if not name.endswith(SCORES)]
    with recorded(points, names) as values:
        assert_same(model(make_tokens(), attention_mask=mask(), output_hidden_states=True), expected)
    assert list(values) == names
    assert [tuple(value.shape) for (value,) in values.values()] == [shape(case.kind, name) for name in names]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", FUSED)
def test_activations_are_those_of_the_eager_model(case: Case, mask: Callable[[], torch.Tensor | None]) -> None:
    """Scores and patterns are hooked in every layer, so that all is computed eagerly, whatever the mask's form."""
    runs = []
    for model in (build(case), make_model(Case(case.kind)).requires_grad_(False)):
        points = mishformer_lens.instrument(model).hook_points
        with recorded(points, unflagged(case.kind)) as values:
            logits = model(make_tokens(), attention_mask=mask()).logits
        runs.append({name: value[0] for name, value in values.items()} | {"logits": logits})
    for name, expected in runs[1].items():
        axis = 2 if name.endswith(SCORES) else 1
        found, wanted = visible(mask(), runs[0][name], axis), visible(mask(), expected, axis)
        if name.endswith("hook_attn_scores"):
            # Masks add up to different numbers where both of two masks hide; all of them mean never.
            found, wanted = found.clamp(min=-1e30), wanted.clamp(min=-1e30)
        assert_close(found, wanted, name, **CLOSE)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", FUSED)
@pytest.mark.parametrize("hook", SCORES)
def test_an_edit_in_one_layer_acts_as_in_the_eager_model(case: Case, mask: Any, hook: str) -> None:
    name = f"blocks.0.attn.{hook}"
    logits = []
    for model in (build(case), make_model(Case(case.kind)).requires_grad_(False)):
        points = mishformer_lens.instrument(model).hook_points
        with hooked(points, {name: lambda activation, hook: activation + noise_like(activation)}):
            logits.append(visible(mask(), model(make_tokens(), attention_mask=mask()).logits, 1))
    assert_close(logits[0], logits[1], name, **CLOSE)


@pytest.mark.parametrize("case", FLASH)
def test_other_layers_keep_their_kernel(case: Case) -> None:
    model = build(case)
    instrumentation = mishformer_lens.instrument(model)
    stand_in_kernel.calls.clear()
    model(make_tokens())
    assert len(stand_in_kernel.calls) == N_LAYERS
    stand_in_kernel.calls.clear()
    instrumentation["blocks.1.attn.hook_pattern"].add_hook(lambda activation, hook: None)
    with pytest.warns(EagerFallbackWarning):
        model(make_tokens())
    assert len(stand_in_kernel.calls) == N_LAYERS - 1


@pytest.mark.parametrize("case", cases("sdpa", "flash_attention_2", dtypes=(torch.float32,)))
def test_decoding_with_a_cache_under_a_hooked_pattern(case: Case) -> None:
    """Each step's scores have one query and all keys, and what is generated is what the eager model generates."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    outputs = []
    for label, model in (("fused", build(case)), ("eager", make_model(Case(case.kind)).requires_grad_(False))):
        points = mishformer_lens.instrument(model).hook_points
        seen: list[tuple[int, ...]] = []

        def note(activation: torch.Tensor, hook: Any, seen: Any = seen) -> None:
            seen.append(tuple(activation.shape))

        with hooked(points, {"blocks.1.attn.hook_pattern": note}):
            outputs.append(
                model.generate(
                    make_tokens(), attention_mask=left_padding(), max_new_tokens=4, do_sample=False, pad_token_id=0
                )
            )
        shapes[label] = seen
    assert shapes["fused"] == [(3, 4, 7, 7), (3, 4, 1, 8), (3, 4, 1, 9), (3, 4, 1, 10)]
    assert shapes["eager"] == shapes["fused"]
    assert torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("case", cases("sdpa", "flash_attention_2", dtypes=(torch.float32,)))
def test_several_new_tokens_with_a_cache_under_a_hooked_pattern(case: Case) -> None:
    """A second chunk longer than one token: its queries begin after the cached keys."""
    found = []
    for model in (build(case), make_model(Case(case.kind)).requires_grad_(False)):
        points = mishformer_lens.instrument(model).hook_points
        first = model(make_tokens()[:, :4], use_cache=True)
        with recorded(points, [f"blocks.{index}.attn.hook_pattern" for index in range(2)]) as values:
            second = model(make_tokens()[:, 4:], **capabilities.past(model, first), use_cache=True)
        found.append([values[f"blocks.{index}.attn.hook_pattern"][0] for index in range(2)] + [second.logits])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, "decoding", **CLOSE)


# Not compiled, which would take a minute and a C++ compiler: torch then warns that flex attention is slow.
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:return_lse is deprecated:FutureWarning")
@pytest.mark.parametrize("case", FLEX)
def test_flex_attention(case: Case) -> None:
    plain, model = build(case), build(case)
    points = mishformer_lens.instrument(model).hook_points
    name = "blocks.0.attn.hook_pattern"
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for mask in (None, left_padding()):
            expected = plain(make_tokens(), attention_mask=mask).logits
            assert_same(model(make_tokens(), attention_mask=mask).logits, expected)
            eager = make_model(Case(case.kind))
            eager_points = mishformer_lens.instrument(eager).hook_points
            found = []
            for each, each_points in ((model, points), (eager, eager_points)):
                with hooked(each_points, {name: lambda activation, hook: activation + noise_like(activation)}):
                    found.append(visible(mask, each(make_tokens(), attention_mask=mask).logits, 1))
            assert_close(found[0], found[1], name, **CLOSE)


def test_what_a_release_does_not_offer_is_declared_with_a_reason(kind: str) -> None:
    instrumentation = mishformer_lens.instrument(make_model(Case(kind)))
    known = {"eager", "sdpa", "flash_attention_2", "flex_attention"}
    assert set(instrumentation.features) >= {"eager"}
    assert known <= set(instrumentation.features) | set(instrumentation.unsupported)
    assert all(len(reason) > 20 for reason in instrumentation.unsupported.values())
    for attention in known - set(instrumentation.features):
        # Declared, because transformers itself refuses it.
        with pytest.raises((ValueError, ImportError, KeyError)):
            make_model(Case(kind, attention))
