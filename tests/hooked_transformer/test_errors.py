"""Errors of the drop-in are also of the kinds that TransformerLens raises in the same place, and stay readable."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import MishformerLensError, UnknownHookError
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import make_hf_model, make_model_of, make_reference
from tests.hooked_transformer.scenarios import tokens

TYPO = "blocks.0.attn.hook_patern"


def keep(activation: torch.Tensor, hook: Any) -> None:
    """A hook that does nothing."""


# What is wrong, done to either model, and what TransformerLens 2.15.4 raises.
WRONG: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "unknown hook, run_with_hooks": (lambda m: m.run_with_hooks(tokens(), fwd_hooks=[(TYPO, keep)]), KeyError),
    "unknown hook, add_hook": (lambda m: m.add_hook(TYPO, keep), KeyError),
    "unknown hook, add_perma_hook": (lambda m: m.add_perma_hook(TYPO, keep), KeyError),
    "unknown hook, hook_dict": (lambda m: m.hook_dict[TYPO], KeyError),
    "unknown hook, mod_dict": (lambda m: m.mod_dict[TYPO], KeyError),
    "unknown hook, attribute": (lambda m: m.blocks[0].attn.hook_patern, AttributeError),
    "unknown hook, hooks": (lambda m: m.hooks(fwd_hooks=[(TYPO, keep)]).__enter__(), KeyError),
    "a part is no hook point": (lambda m: m.add_hook("blocks.0.attn", keep), AssertionError),
    "names_filter": (lambda m: m.run_with_cache(tokens(), names_filter=3), ValueError),
    "names_filter, add_caching_hooks": (lambda m: m.add_caching_hooks(names_filter=3), AssertionError),
    "direction": (lambda m: m.add_hook("hook_embed", keep, dir="sideways"), ValueError),
    "unknown activation": (lambda m: m.run_with_cache(tokens(), names_filter="hook_embed")[1]["nothing"], KeyError),
    "text without a tokenizer": (lambda m: m("text"), AssertionError),
    "to_tokens without a tokenizer": (lambda m: m.to_tokens("text"), AssertionError),
    "to_string without a tokenizer": (lambda m: m.to_string(torch.tensor([1])), AssertionError),
    "to_str_tokens without a tokenizer": (lambda m: m.to_str_tokens("text"), AssertionError),
    "generate without a tokenizer": (lambda m: m.generate("text", verbose=False), AssertionError),
    "tokens out of range": (lambda m: m(torch.tensor([[1, 300]])), IndexError),
    "a mask of another shape": (lambda m: m(tokens(), attention_mask=torch.ones(2, 3)), AssertionError),
    "no tokens for a loss": (
        lambda m: m(torch.zeros(2, 7, 32), start_at_layer=0, return_type="loss"),
        AssertionError,
    ),
    "no tensor to start with": (lambda m: m("text", start_at_layer=0), AssertionError),
    "padding side": (lambda m: m.set_tokenizer(object(), default_padding_side="middle"), AssertionError),
    "no tokenizer": (lambda m: m.set_tokenizer("gpt2"), AssertionError),
    "return_type of generate": (
        lambda m: m.generate(tokens(), return_type="logits", verbose=False),
        AssertionError,
    ),
    "composition": (lambda m: m.all_composition_scores("O"), ValueError),
    "no such layer": (lambda m: m.accumulated_bias(2, mlp_input=True), AssertionError),
    "batch of a cache": (
        lambda m: m.get_pos_offset(KeyValueCache.init_cache(m.cfg, m.cfg.device, 3), 2),
        AssertionError,
    ),
}

WITH_TOKENIZER: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "several tokens": (lambda m: m.to_single_token("Velmira gave"), AssertionError),
    "no int": (lambda m: m.to_single_str_token("a"), AssertionError),
    "it does not occur": (lambda m: m.get_token_position("Q", "The mill"), AssertionError),
    "mode": (lambda m: m.get_token_position(5, torch.tensor([[5, 6]]), mode="middle"), ValueError),
    "several sequences": (lambda m: m.get_token_position("e", torch.zeros(2, 3)), AssertionError),
    "tokens of three axes": (lambda m: m.to_string(torch.zeros(1, 1, 1)), ValueError),
    "tokens of two axes": (lambda m: m.to_str_tokens(torch.zeros(2, 3)), AssertionError),
    "a number": (lambda m: m.to_str_tokens(3.5), ValueError),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_transformer_lens_s_kind(name: str) -> None:
    wrong, kind = WRONG[name]
    with pytest.raises(kind) as error:
        wrong(make_model_of("gpt2"))
    assert isinstance(error.value, MishformerLensError) or name in ("direction", "unknown activation")


@needs_reference
@pytest.mark.parametrize("name", WRONG)
def test_transformer_lens_raises_that_kind(name: str) -> None:
    wrong, kind = WRONG[name]
    with pytest.raises(kind):
        wrong(make_reference("gpt2"))


@pytest.mark.parametrize("name", WITH_TOKENIZER)
def test_errors_of_text_are_of_transformer_lens_s_kind(name: str, tokenizer: Any) -> None:
    wrong, kind = WITH_TOKENIZER[name]
    with pytest.raises(kind) as error:
        wrong(make_model_of("gpt2", tokenizer))
    assert isinstance(error.value, MishformerLensError)


@needs_reference
@pytest.mark.parametrize("name", WITH_TOKENIZER)
def test_transformer_lens_raises_that_kind_for_text(name: str, tokenizer: Any) -> None:
    wrong, kind = WITH_TOKENIZER[name]
    with pytest.raises(kind):
        wrong(make_reference("gpt2", tokenizer))


def test_messages_are_not_quoted(kind: str) -> None:
    model = make_model_of(kind)
    for ask in (lambda: model.hook_dict[TYPO], lambda: model.blocks[0].attn.hook_patern, lambda: model.mod_dict[TYPO]):
        with pytest.raises(UnknownHookError) as error:
            ask()
        assert str(error.value) == error.value.args[0]
        assert "Did you mean '" in str(error.value)
        again = pickle.loads(pickle.dumps(error.value))
        assert str(again) == str(error.value)
        assert type(again) is type(error.value)


def test_what_asks_whether_there_is_a_hook_point_gets_an_answer(kind: str) -> None:
    model = make_model_of(kind)
    assert TYPO not in model.hook_dict
    assert model.hook_dict.get(TYPO) is None
    assert not hasattr(model.blocks[0].attn, "hook_patern")
    assert getattr(model.blocks[0].attn, "hook_patern", 3) == 3


def test_right_use_raises_none_of_them(tokenizer: Any) -> None:
    model = HookedTransformer(make_hf_model("gpt2"), tokenizer)
    model.add_hook("blocks.0.attn.hook_pattern", keep)
    model.reset_hooks()
    model.run_with_cache(tokens(), names_filter=["hook_embed"])
    assert model.to_single_token("a") >= 0
    assert model.accumulated_bias(2).shape == (32,)
