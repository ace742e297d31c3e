"""The drop-in's pass is HuggingFace's default call, bit by bit, over many shapes."""

import warnings
from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import EagerFallbackWarning
from tests.hooked_transformer.making import TEXTS, make_hf_model, make_model_of
from tests.hooked_transformer.scenarios import D_VOCAB

# Multiples of the vectors of a processor, their neighbours, and single rows: kernels differ by these.
SHAPES = [(batch, pos) for batch in (1, 2, 3, 5) for pos in (1, 2, 3, 7, 8, 13, 16, 33, 64)]


def make_tokens(batch: int, pos: int) -> torch.Tensor:
    return torch.randint(0, D_VOCAB, (batch, pos), generator=torch.Generator().manual_seed(batch * 100 + pos))


@pytest.fixture(params=["eager", "sdpa"])
def pair(request: pytest.FixtureRequest, kind: str) -> tuple[Any, HookedTransformer]:
    """HuggingFace's model, and the drop-in on another with the same weights."""
    return make_hf_model(kind, request.param), make_model_of(kind, attention=request.param)


def test_logits_and_loss_are_those_of_the_default_call(pair: tuple[Any, HookedTransformer]) -> None:
    plain, model = pair
    for shape in SHAPES:
        tokens = make_tokens(*shape)
        expected = plain(tokens)
        assert torch.equal(model(tokens), expected.logits), shape
        if shape[1] == 1:
            continue
        labelled = plain(tokens, labels=tokens)
        assert torch.equal(model(tokens, return_type="loss"), labelled.loss), shape
        both = model(tokens, return_type="both")
        assert torch.equal(both.logits, labelled.logits), shape
        assert torch.equal(both.loss, labelled.loss), shape


def test_passes_in_two_parts_are_the_default_call_too(pair: tuple[Any, HookedTransformer]) -> None:
    plain, model = pair
    for shape in SHAPES:
        tokens = make_tokens(*shape)
        expected = plain(tokens).logits
        for layer in (0, 1, 2):
            residual = model(tokens, stop_at_layer=layer)
            assert torch.equal(model(residual, start_at_layer=layer), expected), (shape, layer)


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_configuration_decides_whether_keys_are_cached_meanwhile(kind: str, use_cache: bool) -> None:
    model = make_model_of(kind)
    model.hf_model.config.use_cache = use_cache
    returned = []
    handle = model.hf_model.register_forward_hook(lambda module, args, output: returned.append(output))
    model(make_tokens(2, 7))
    handle.remove()
    cache = model.instrumentation.variant.cache_argument
    assert (returned[0].get(cache) is not None) == use_cache


def test_a_cache_of_activations_changes_no_bit(kind: str) -> None:
    plain, model = make_hf_model(kind, "eager"), make_model_of(kind, attention="eager")
    for shape in SHAPES[::4]:
        tokens = make_tokens(*shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EagerFallbackWarning)
            logits, _ = model.run_with_cache(tokens)
        assert torch.equal(logits, plain(tokens).logits), shape


def test_under_padding_it_is_the_call_with_mask_positions_and_labels(kind: str, tokenizer: Any) -> None:
    plain, model = make_hf_model(kind), make_model_of(kind, tokenizer)
    tokens = model.to_tokens(TEXTS, padding_side="left")
    mask = torch.ones_like(tokens)
    padding = tokens.shape[1] - model.to_tokens(TEXTS[0]).shape[1]
    mask[0, :padding] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    labels[0, padding] = -100  # what padding predicts counts nothing
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = plain(tokens, attention_mask=mask, position_ids=positions, labels=labels)
    assert torch.equal(model(TEXTS, padding_side="left"), expected.logits)
    assert torch.equal(model(TEXTS, padding_side="left", return_type="loss"), expected.loss)


def test_the_loss_in_half_precision_is_hugging_face_s(kind: str) -> None:
    plain, model = make_hf_model(kind, dtype=torch.bfloat16), make_model_of(kind, dtype=torch.bfloat16)
    tokens = make_tokens(2, 9)
    expected = plain(tokens, labels=tokens).loss
    got = model(tokens, return_type="loss")
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)


def test_its_gradients_are_hugging_face_s(kind: str) -> None:
    plain, model = make_hf_model(kind), make_model_of(kind)
    tokens = make_tokens(3, 11)
    plain(tokens, labels=tokens).loss.backward()
    model(tokens, return_type="loss").backward()
    for (name, ours), theirs in zip(model.hf_model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def test_the_loss_by_hand_is_the_same_within_rounding(kind: str) -> None:
    model = make_model_of(kind)
    tokens = make_tokens(2, 9)
    got = model.loss_fn(model(tokens), tokens)
    torch.testing.assert_close(got, model(tokens, return_type="loss"), rtol=1e-6, atol=1e-6)
    per_token = model(tokens, return_type="loss", loss_per_token=True)
    assert per_token.shape == (2, 8)
    torch.testing.assert_close(per_token.mean(), got, rtol=1e-6, atol=1e-6)


def test_a_loss_of_ones_own_is_used(kind: str) -> None:
    class Halved(HookedTransformer):
        def loss_fn(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().loss_fn(*args, **kwargs) / 2

    model = Halved(make_hf_model(kind))
    tokens = make_tokens(2, 9)
    expected = HookedTransformer.loss_fn(model, model(tokens), tokens) / 2
    assert torch.equal(model(tokens, return_type="loss"), expected)
    plain = make_model_of(kind)
    plain.loss_fn = lambda *_: torch.tensor(7.0)  # type: ignore[method-assign]
    assert float(plain(tokens, return_type="loss")) == 7.0
