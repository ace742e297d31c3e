"""What ``generate`` takes besides TransformerLens's arguments is what HuggingFace's takes, and does the same."""

from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import ForwardArgumentsError, UnknownArgumentError
from tests.hooked_transformer.making import TEXTS
from tests.hooked_transformer.scenarios import tokens

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}


class Only(LogitsProcessor):
    """Leaves one token."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([self.token]), 0.0)


class After(StoppingCriteria):
    """Stops once a sequence is so long."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        return torch.full((input_ids.shape[0],), input_ids.shape[1] >= self.length)


def generated(model: HookedTransformer, **arguments: Any) -> Any:
    return model.generate(tokens(), verbose=False, stop_at_eos=False, **{**GREEDY, **arguments})


def by_hugging_face(model: HookedTransformer, **arguments: Any) -> Any:
    return model.hf_model.generate(tokens(), pad_token_id=0, **{**GREEDY, **arguments})


@pytest.mark.parametrize("form", [list, LogitsProcessorList])
def test_logits_processors(model: HookedTransformer, form: Any) -> None:
    given = form([Only(7)])
    assert (generated(model, logits_processor=given)[:, 7:] == 7).all()
    assert len(given) == 1
    assert not (generated(model)[:, 7:] == 7).all()


def test_a_logits_processor_beside_the_frequency_penalty(model: HookedTransformer) -> None:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"do_sample": True, "freq_penalty": 1e10, "logits_processor": [Only(7)]}
    # The first is the one that is left; then its penalty is larger than what the processor took off the others.
    got = generated(model, **arguments)
    assert (got[:, 7] == 7).all()
    assert not (got[:, 8] == 7).any()


@pytest.mark.parametrize("form", [list, StoppingCriteriaList])
def test_stopping_criteria(model: HookedTransformer, form: Any) -> None:
    given = form([After(9)])
    got = generated(model, stopping_criteria=given)
    assert torch.equal(got, generated(model)[:, :9])
    assert len(given) == 1
    assert torch.equal(got, by_hugging_face(model, stopping_criteria=StoppingCriteriaList(given)))


def test_an_attention_mask(model: HookedTransformer) -> None:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :3] = 0
    expected = by_hugging_face(model, attention_mask=mask)
    got = generated(model, attention_mask=mask)
    assert torch.equal(got, expected)
    alone = model.generate(tokens()[1:, 3:], verbose=False, stop_at_eos=False, **GREEDY)
    assert torch.equal(got[1, 7:], alone[0, 4:])
    with pytest.raises(ForwardArgumentsError, match=r"shape \[2, 3\]; it must be \[2, 7\]"):
        generated(model, attention_mask=mask[:, :3])


def test_hugging_face_s_output_as_a_whole(model: HookedTransformer) -> None:
    arguments = {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True}
    got = generated(model, **arguments)
    expected = by_hugging_face(model, **arguments)
    assert type(got) is type(expected)
    assert torch.equal(got.sequences, expected.sequences)
    assert all(torch.equal(one, other) for one, other in zip(got.scores, expected.scores, strict=True))
    assert len(got.hidden_states) == 6
    model.hf_model.generation_config.return_dict_in_generate = True
    assert torch.equal(generated(model).sequences, expected.sequences)


def test_beams_and_several_sequences(model: HookedTransformer) -> None:
    arguments = {"num_beams": 3, "num_return_sequences": 2}
    got = generated(model, **arguments)
    assert got.shape == (4, 13)
    assert torch.equal(got, by_hugging_face(model, **arguments, eos_token_id=model.cfg.d_vocab))


def test_tokens_that_must_not_come(model: HookedTransformer) -> None:
    first = int(generated(model)[0, 7])
    arguments = {"suppress_tokens": [first], "no_repeat_ngram_size": 1}
    got = generated(model, **arguments)
    assert first not in got[0, 7:]
    assert torch.equal(got, by_hugging_face(model, **arguments))


def test_a_padding_token_of_ones_own(model: HookedTransformer) -> None:
    free = generated(model)
    ends = int(free[0, 8])
    got = model.generate(tokens(), verbose=False, eos_token_id=ends, pad_token_id=5, **GREEDY)
    first = 7 + free[0, 7:].tolist().index(ends)
    assert (got[0, first + 1 :] == 5).all()


def test_a_generation_configuration(model: HookedTransformer) -> None:
    first = int(generated(model)[0, 7])
    config = GenerationConfig(suppress_tokens=[first], bos_token_id=0, eos_token_id=0)
    got = generated(model, generation_config=config)
    assert first not in got[0, 7:]
    assert config.suppress_tokens == [first]


def test_text_with_all_of_it(model: HookedTransformer) -> None:
    mask = torch.ones_like(model.to_tokens(TEXTS[0]))
    arguments: dict[str, Any] = {**GREEDY, "verbose": False, "logits_processor": [Only(70)], "attention_mask": mask}
    got = model.generate(TEXTS[0], **arguments)
    assert got == TEXTS[0] + model.to_single_str_token(70) * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_kk": 3}, r"no argument 'top_kk'.*Did you mean 'top_k'"),
        ({"max_tokens": 3}, r"no argument 'max_tokens'"),
        ({"logit_processor": []}, r"Did you mean 'logits_processor'"),
        ({"kwargs": {}}, r"no argument 'kwargs'"),
        ({"input_ids": torch.zeros(1, 1)}, r"takes input_ids as input"),
        ({"inputs_embeds": torch.zeros(1, 1, 32)}, r"takes inputs_embeds as input"),
    ],
)
def test_what_it_does_not_take(model: HookedTransformer, arguments: Any, message: str) -> None:
    before = model.hf_model.training
    for error in (UnknownArgumentError, TypeError):
        with pytest.raises(error, match=message):
            generated(model, **arguments)
    assert model.hf_model.training == before
