"""Real kernels on CUDA, in 16 bits: flash attention where its package is installed, and torch's own.

`nox -s "test_gpu-3.11(transformers='…')"` runs these in a process of their own: elsewhere in the suite a stand-in takes
the place of flash attention.

Equality of a hooked model with a plain one is exact, as everywhere: both run the same kernels on the same numbers.
Only where a hook makes a layer leave its kernel is there a tolerance, of the dtype's own rounding: eager attention
rounds the scores and the pattern to 16 bits, which the kernel never writes down.
"""

import importlib.util
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning
from tests.models import KINDS, Case, left_padding, make_model, make_tokens
from tests.recording import assert_same, hooked, recorded

pytestmark = pytest.mark.gpu

# Logits of the tiny models are about 1; two layers of sums of 32 products, rounded to 11 and to 8 bits.
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 1e-1}

FLASH_IS_HERE = importlib.util.find_spec("flash_attn") is not None
KERNELS = [
    "sdpa",
    pytest.param(
        "flash_attention_2",
        marks=pytest.mark.skipif(not FLASH_IS_HERE, reason="flash_attn is not installed: it is built on the machine"),
    ),
]


@pytest.fixture(params=KERNELS)
def attention(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(TOLERANCES), ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    assert isinstance(request.param, torch.dtype)
    return request.param


def build(kind: str, attention: str, dtype: torch.dtype) -> Any:
    variant = mishformer_lens.variants[Case(kind).family]
    assert variant is not None
    assert attention in variant.attention
    return make_model(Case(kind, attention, dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@torch.no_grad()
def test_idle_and_observed_identity(kind: str, attention: str, dtype: torch.dtype, padded: bool) -> None:
    plain, model = build(kind, attention, dtype), build(kind, attention, dtype)
    instrumentation = mishformer_lens.instrument(model)
    mask = left_padding() if padded else None
    expected = plain(make_tokens(), attention_mask=mask, output_hidden_states=True)
    assert_same(model(make_tokens(), attention_mask=mask, output_hidden_states=True), expected)
    kept = [name for name in instrumentation.unflagged_names if "scores" not in name and "pattern" not in name]
    with instrumentation.caching(kept) as cache:
        assert_same(model(make_tokens(), attention_mask=mask, output_hidden_states=True), expected)
    assert list(cache) == kept


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_generation(kind: str, attention: str, dtype: torch.dtype) -> None:
    plain, model = build(kind, attention, dtype), build(kind, attention, dtype)
    mishformer_lens.instrument(model)
    arguments = {"attention_mask": left_padding(), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(make_tokens(), **arguments), plain.generate(make_tokens(), **arguments))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str, dtype: torch.dtype) -> None:
    """Under sdpa: flash attention's own backward pass adds up in an order that differs from run to run."""
    models = build(kind, "sdpa", dtype), build(kind, "sdpa", dtype)
    mishformer_lens.instrument(models[1])
    for model in models:
        model(make_tokens(), labels=make_tokens()).loss.backward()
    gradients = ([parameter.grad for parameter in model.parameters()] for model in models)
    for plain, found in zip(*gradients, strict=True):
        assert torch.equal(plain, found)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_hooked_pattern_makes_its_layer_eager_within_the_rounding_of_the_dtype(
    kind: str, attention: str, dtype: torch.dtype
) -> None:
    model = build(kind, attention, dtype)
    instrumentation = mishformer_lens.instrument(model)
    expected = model(make_tokens()).logits
    instrumentation["blocks.0.attn.hook_pattern"].add_hook(lambda activation, hook: None)
    with pytest.warns(EagerFallbackWarning):
        found = model(make_tokens()).logits
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_edits_act_under_the_kernel_as_under_eager(kind: str, attention: str, dtype: torch.dtype) -> None:
    names = [f"blocks.0.attn.hook_{part}" for part in ("q", "k", "v", "z")]
    logits = {}
    for implementation in (attention, "eager"):
        model = build(kind, implementation, dtype)
        points = mishformer_lens.instrument(model).hook_points
        with hooked(points, dict.fromkeys(names, lambda activation, hook: activation * 0.5)), recorded(points, names):
            logits[implementation] = model(make_tokens()).logits
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(logits[attention], logits["eager"], rtol=tolerance, atol=tolerance)


def test_these_tests_run_where_they_say() -> None:
    assert torch.cuda.is_available()
    assert next(make_model(Case("gpt2")).parameters()).device.type == "cuda"
