"""Attention kernels in every family: what stands in for one while scores are looked at computes what it computes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning
from tests import capabilities
from tests.conformance import stand_in_kernel
from tests.conformance.families.conftest import cases
from tests.kinds import Kind, kinds
from tests.models import BATCH, N_HEADS, N_LAYERS, POS, Case, left_padding, make_model, make_tokens
from tests.recording import assert_close, assert_same, hooked, noise_like

pytestmark = [
    # Not compiled, which would take a minute and a C++ compiler: torch then warns that flex attention is slow.
    pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile:UserWarning"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:return_lse is deprecated:FutureWarning"),
]
LOOKING = pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")

LONG = 12
"""More positions than any kind's sliding window has."""
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
FUSED = cases("sdpa", "flash_attention_2", "flex_attention", dtypes=(torch.float32,))
COUNTED = cases("sdpa", "flash_attention_2", dtypes=(torch.float32,))


@pytest.fixture(autouse=True)
def _without_compiling() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield


def build(case: Case, **changes: Any) -> Any:
    """A model whose parameters need no gradient, which flex attention on the CPU has none for."""
    if case.attention == "flash_attention_2":
        return stand_in_kernel.make_flash_model(case, **changes).requires_grad_(False)
    return make_model(case, **changes).requires_grad_(False)


def names(*layers: int) -> list[str]:
    return [f"blocks.{layer}.attn.{hook}" for layer in layers for hook in ("hook_attn_scores", "hook_pattern")]


INPUTS: dict[str, Any] = {
    "no mask": lambda: (make_tokens(pos=LONG), None),
    "all visible": lambda: (make_tokens(pos=LONG), torch.ones_like(make_tokens(pos=LONG))),
    "left padding": lambda: (make_tokens(pos=LONG), left_padding(pos=LONG)),
}


def skip_where_it_fails(case: Case, given: str) -> None:
    """Skip where the release's own models fail under a kernel with what is given."""
    variant = mishformer_lens.variants[case.family]
    assert variant is not None
    reason = variant.unsupported.get(f"{case.attention} with {given}")
    if reason is not None:
        pytest.skip(reason)


def real(mask: torch.Tensor | None, value: torch.Tensor, axis: int = 1) -> torch.Tensor:
    """The rows of an activation that belong to real tokens."""
    return value if mask is None else value.movedim(axis, 1)[mask.bool()]


@LOOKING
@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("case", FUSED)
def test_looking_at_scores_changes_rounding_only(case: Case, given: Any) -> None:
    tokens, mask = given()
    if mask is not None and not mask.all():
        skip_where_it_fails(case, "padding")
    model = build(case)
    try:
        expected = model(tokens, attention_mask=mask).logits
    except RuntimeError as error:
        assert case.attention == "flash_attention_2"
        pytest.skip(f"this release's own flash attention fails with this mask: {error}")
    instrumentation = mishformer_lens.instrument(model)
    for layers in ((0,), (1,), (0, 1)):
        with instrumentation.caching(names(*layers)) as cache:
            found = model(tokens, attention_mask=mask).logits
        assert_close(real(mask, found), real(mask, expected), str(layers), **CLOSE)
        assert {tuple(value.shape) for value in cache.values()} == {(BATCH, N_HEADS, LONG, LONG)}
    assert_same(model(tokens, attention_mask=mask).logits, expected, "afterwards")


def agrees_with_eager(case: Case, form: Kind) -> dict[str, Any]:
    """Changes of the configuration after which eager attention computes what the kernel does."""
    if case.attention == "flash_attention_2":
        return dict(form.like_flash)
    # Only eager attention, flash and flex attention know of soft caps.
    return {"attn_logit_softcapping": None} if form.softcap is not None and case.attention == "sdpa" else {}


def windows_are_eager_s(form: Kind) -> bool:
    """Whether flash attention has the windows that eager attention has: none; or none wider, and eager heeds them."""
    asked = any(form.fields.get(field) for field in ("sliding_window", "use_sliding_window"))
    return bool(form.like_flash) or not asked or (any(form.windows) and capabilities.window_reach(3) == 2)


@LOOKING
@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("case", FUSED)
def test_patterns_are_those_of_the_eager_model(case: Case, given: Any) -> None:
    form = kinds()[case.kind]
    if form.eager_differs:
        pytest.skip(form.eager_differs)
    if case.attention == "flash_attention_2" and not windows_are_eager_s(form):
        pytest.skip("this release's windows are others under flash attention than under eager attention")
    tokens, mask = given()
    if mask is not None and not mask.all():
        skip_where_it_fails(case, "padding")
    if case.attention == "flex_attention" and mask is None:
        pytest.skip("not every release's flex attention is causal without a mask")
    caches = []
    for model in (build(case), make_model(Case(case.kind), **agrees_with_eager(case, form)).requires_grad_(False)):
        with mishformer_lens.instrument(model).caching(names(*range(N_LAYERS))) as cache:
            logits = model(tokens, attention_mask=mask).logits
        caches.append({name: value for name, value in cache.items() if name.endswith("pattern")} | {"logits": logits})
    for name, expected in caches[1].items():
        axis = 1 if name == "logits" else 2
        assert_close(real(mask, caches[0][name], axis), real(mask, expected, axis), name, **CLOSE)


@contextlib.contextmanager
def counted(case: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry for each call of the kernel."""
    calls = stand_in_kernel.calls
    calls.clear()
    own = torch.nn.functional.scaled_dot_product_attention

    def attend(*arguments: Any, **others: Any) -> torch.Tensor:
        calls.append("called")
        return own(*arguments, **others)

    with monkeypatch.context() as patch:
        if case.attention == "sdpa":
            patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
        yield calls


@pytest.mark.parametrize("case", COUNTED)
def test_one_layer_leaves_its_kernel_with_one_warning(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(case)
    instrumentation = mishformer_lens.instrument(model)
    with counted(case, monkeypatch) as calls:
        model(make_tokens())
        assert len(calls) == N_LAYERS
        calls.clear()
        with instrumentation.caching(names(1)), pytest.warns(EagerFallbackWarning) as warned:
            model(make_tokens())
        assert len(calls) == N_LAYERS - 1
        assert len(warned) == 1


@pytest.mark.parametrize("case", COUNTED)
def test_hooks_around_a_kernel_leave_it_where_it_is(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observed, not a bit changes; edits of what goes in and comes out act as in the eager model."""
    model, eager = build(case), None
    form = kinds()[case.kind]
    instrumentation = mishformer_lens.instrument(model)
    into = ("hook_rot_q", "hook_rot_k") if form.rotary else ("hook_q", "hook_k")
    around = [f"blocks.{layer}.attn.{hook}" for layer in range(N_LAYERS) for hook in (*into, "hook_z")]
    expected = model(make_tokens()).logits
    eager = make_model(Case(case.kind), **agrees_with_eager(case, form)).requires_grad_(False)
    eager_points = mishformer_lens.instrument(eager).hook_points
    with counted(case, monkeypatch) as calls:
        with instrumentation.caching(around) as cache:
            assert_same(model(make_tokens()).logits, expected)
        assert len(calls) == N_LAYERS
        assert list(cache) == around
        for name in around:
            edit = {name: lambda activation, hook: activation + 0.1 * noise_like(activation)}
            calls.clear()
            with hooked(instrumentation.hook_points, edit):
                found = model(make_tokens()).logits
            assert len(calls) == N_LAYERS
            if not form.eager_differs and (case.attention != "flash_attention_2" or windows_are_eager_s(form)):
                with hooked(eager_points, edit):
                    assert_close(found, eager(make_tokens()).logits, name, **CLOSE)
            assert not torch.allclose(found, expected)


@LOOKING
@pytest.mark.parametrize("case", FUSED)
def test_a_second_chunk_with_a_cache(case: Case) -> None:
    skip_where_it_fails(case, "a cache")
    outputs = []
    for looks in ([], names(0, 1)):
        model = build(case)
        with mishformer_lens.instrument(model) as instrumentation, instrumentation.caching(looks) as cache:
            first = model(make_tokens(pos=LONG)[:, :POS], use_cache=True)
            try:
                past = capabilities.past(model, first)
                outputs.append(model(make_tokens(pos=LONG)[:, POS:], **past, use_cache=True).logits)
            except (IndexError, KeyError, RuntimeError) as error:
                assert not looks
                pytest.skip(f"this release's own model has no room for a second chunk: {error}")
    assert_close(outputs[1], outputs[0], "logits", **CLOSE)
    assert {tuple(value.shape[:-1]) for value in cache.values()} == {(BATCH, N_HEADS, LONG - POS)}


@LOOKING
@pytest.mark.parametrize("case", FUSED)
def test_generating_under_a_hooked_pattern(case: Case) -> None:
    skip_where_it_fails(case, "padding")
    arguments: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    arguments |= {"return_dict_in_generate": True, "output_scores": True, "attention_mask": left_padding()}
    try:
        expected = build(case).generate(make_tokens(), **arguments)
    except (RuntimeError, ValueError) as error:
        assert case.attention != "sdpa"
        pytest.skip(f"this release's own {case.attention} does not generate: {error}")
    model = build(case)
    with mishformer_lens.instrument(model).caching(names(1)):
        found = model.generate(make_tokens(), **arguments)
    assert torch.equal(found.sequences, expected.sequences)
    for one, other in zip(found.scores, expected.scores, strict=True):
        assert_close(one, other, "scores", **CLOSE)
