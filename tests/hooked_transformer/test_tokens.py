"""Text, tokens and back, by TransformerLens's BOS and padding rules."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import TokenizerError
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import TEXTS, make_model_of, make_reference

TEXT = TEXTS[1]


@pytest.fixture(params=["tokenizer", "bos_tokenizer"])
def any_tokenizer(request: pytest.FixtureRequest) -> Any:
    """One that prepends BOS itself, and one that does not."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def gpt2(tokenizer: Any) -> HookedTransformer:
    return make_model_of("gpt2", tokenizer)


CALLS: dict[str, Callable[[Any], Any]] = {
    "one text": lambda model: model.to_tokens(TEXT),
    "without BOS": lambda model: model.to_tokens(TEXT, prepend_bos=False),
    "several": lambda model: model.to_tokens(TEXTS),
    "several, left": lambda model: model.to_tokens(TEXTS, padding_side="left"),
    "several, left, without BOS": lambda model: model.to_tokens(TEXTS, padding_side="left", prepend_bos=False),
    "several, right, without BOS": lambda model: model.to_tokens(TEXTS, padding_side="right", prepend_bos=False),
    "empty": lambda model: model.to_tokens(""),
    "cut": lambda model: model.to_tokens(TEXT * 20),
    "not cut": lambda model: model.to_tokens(TEXT * 20, truncate=False),
    "strings": lambda model: model.to_str_tokens(TEXT),
    "strings without BOS": lambda model: model.to_str_tokens(TEXT, prepend_bos=False),
    "strings of several": lambda model: model.to_str_tokens(TEXTS),
    "strings of tokens": lambda model: model.to_str_tokens(torch.tensor([[5, 6, 70]])),
    "strings of an array": lambda model: model.to_str_tokens(np.array([5, 6, 70])),
    "strings of one token": lambda model: model.to_str_tokens(torch.tensor(5)),
    "text": lambda model: model.to_string([5, 6, 70]),
    "text of a tensor": lambda model: model.to_string(torch.tensor([[5, 6], [7, 8]])),
    "text of one token": lambda model: model.to_string(torch.tensor(5)),
    "one token": lambda model: model.to_single_token("a"),
    "its text": lambda model: model.to_single_str_token(5),
    "first place": lambda model: model.get_token_position("e", TEXT),
    "last place": lambda model: model.get_token_position("e", TEXT, mode="last", prepend_bos=False),
    "place in tokens": lambda model: model.get_token_position(70, torch.tensor([[5, 70, 70]]), mode="last"),
    "loss": lambda model: model(TEXT, return_type="loss"),
    "loss without BOS": lambda model: model(TEXT, return_type="loss", prepend_bos=False),
    "loss of several": lambda model: model(TEXTS, return_type="loss"),
    "loss of several, left": lambda model: model(TEXTS, return_type="loss", padding_side="left"),
    "generated": lambda model: model.generate(TEXT, max_new_tokens=5, do_sample=False, verbose=False),
    "generated tokens": lambda model: model.generate(
        TEXT, max_new_tokens=5, do_sample=False, verbose=False, return_type="tokens"
    ),
    "after set_tokenizer": lambda model: (
        model.set_tokenizer(model.tokenizer, default_padding_side="left") or model.to_tokens(TEXTS)
    ),
    "own default": lambda model: vars(model.cfg).update(default_prepend_bos=False) or model.to_tokens(TEXT),
}


@needs_reference
@pytest.mark.parametrize("call", CALLS)
def test_same_as_transformer_lens(call: str, any_tokenizer: Any) -> None:
    got = CALLS[call](make_model_of("gpt2", any_tokenizer))
    expected = CALLS[call](make_reference("gpt2", any_tokenizer))
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    else:
        assert got == expected


def test_bos_goes_in_front_by_default(any_tokenizer: Any) -> None:
    model = make_model_of("gpt2", any_tokenizer)
    with_bos, without = model.to_tokens(TEXT), model.to_tokens(TEXT, prepend_bos=False)
    assert with_bos[0, 0] == any_tokenizer.eos_token_id
    assert torch.equal(with_bos[:, 1:], without)
    assert model.to_string(without[0]) == TEXT
    assert "".join(model.to_str_tokens(TEXT, prepend_bos=False)) == TEXT
    assert model.cfg.default_prepend_bos is True


def test_padding_side(gpt2: HookedTransformer) -> None:
    right, left = gpt2.to_tokens(TEXTS), gpt2.to_tokens(TEXTS, padding_side="left")
    pad = gpt2.tokenizer.pad_token_id
    assert right[0, -1] == pad
    assert left[0, 0] == pad
    assert right[0, 1] != pad


def test_left_padding_changes_no_prediction(kind: str, tokenizer: Any) -> None:
    model = make_model_of(kind, tokenizer)
    alone = model(TEXTS[0])
    padded = model(TEXTS, padding_side="left")[0, -alone.shape[1] :]
    torch.testing.assert_close(padded, alone[0], rtol=1e-4, atol=1e-5)


def test_left_padding_is_what_hugging_face_computes_from_mask_and_positions(kind: str, tokenizer: Any) -> None:
    model = make_model_of(kind, tokenizer)
    tokens = model.to_tokens(TEXTS, padding_side="left")
    mask = torch.ones_like(tokens)
    length = model.to_tokens(TEXTS[0]).shape[1]
    mask[0, : tokens.shape[1] - length] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = model.hf_model(tokens, attention_mask=mask, position_ids=positions).logits
    assert torch.equal(model(TEXTS, padding_side="left"), expected)


def test_the_given_tokenizer_stays_as_it_was(tokenizer: Any) -> None:
    side, pad = tokenizer.padding_side, tokenizer.pad_token
    make_model_of("gpt2", tokenizer).set_tokenizer(tokenizer, default_padding_side="left")
    assert (tokenizer.padding_side, tokenizer.pad_token) == (side, pad)


def test_text_without_a_tokenizer() -> None:
    model = make_model_of("gpt2")
    for call in (model, model.to_tokens, model.to_str_tokens, model.to_single_token, model.generate):
        with pytest.raises(TokenizerError, match="set_tokenizer"):
            call("text")
    with pytest.raises(TokenizerError, match="set_tokenizer"):
        model.to_string([1])
    assert model(torch.tensor([[1, 2]])).shape == (1, 2, 300)


def test_tokens_in_other_forms(gpt2: HookedTransformer) -> None:
    tokens = gpt2.to_tokens(TEXT)
    assert gpt2.to_string(tokens[0].tolist()) == gpt2.to_string(tokens[0])
    assert gpt2.to_string(int(tokens[0, 1])) == gpt2.to_single_str_token(int(tokens[0, 1]))
    assert gpt2.to_str_tokens([TEXT, tokens[0]]) == [gpt2.to_str_tokens(TEXT)] * 2
    last = int(tokens[0, -1])
    assert gpt2.get_token_position(last, tokens, mode="last") == tokens.shape[1] - 1
    direction = gpt2.tokens_to_residual_directions(gpt2.to_single_str_token(last))
    assert torch.equal(direction, gpt2.tokens_to_residual_directions(torch.tensor([last])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.to_single_token("Velmira gave"), "tokens, .* one is needed"),
        (lambda model: model.to_single_str_token("a"), "not an int"),
        (lambda model: model.get_token_position("Q", TEXT), "does not occur"),
        (lambda model: model.get_token_position("e", TEXT, mode="middle"), "'first' or 'last'"),
        (lambda model: model.get_token_position("e", torch.zeros(2, 3)), r"\[pos\] or \[1, pos\]"),
        (lambda model: model.to_string(torch.zeros(1, 1, 1)), r"\[pos\] or \[batch, pos\]"),
        (lambda model: model.to_str_tokens(torch.zeros(2, 3)), r"\[pos\] or \[1, pos\]"),
        (lambda model: model.to_str_tokens(3.5), "float given"),
        (lambda model: model.to_tokens(TEXT, padding_side="middle"), "'left', 'right' or None"),
        (lambda model: model.to_tokens(TEXT, prepend_bos="yes"), "True, False or None"),
        (lambda model: model.set_tokenizer("gpt2"), "not a tokenizer"),
        (lambda model: model.set_tokenizer(model.tokenizer, "middle"), "default_padding_side"),
        (lambda model: model(torch.tensor([[1, 300]])), "knows 0 to 299"),
        (lambda model: model(torch.tensor([[-1, 3]])), "from -1 to 3"),
        (lambda model: model.generate(torch.tensor([[1, 300]])), "knows 0 to 299"),
    ],
)
def test_wrong_use(gpt2: HookedTransformer, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        call(gpt2)
