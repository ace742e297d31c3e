"""The drop-in and its parts, pickled and copied, here and in another process."""

import copy
import io
import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import dill
import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import HooksLeftBehindWarning, NotInstrumentedError, UnknownHookError
from tests.hooked_transformer.making import make_model_of
from tests.hooked_transformer.scenarios import tokens

RESIDUAL, Z = "blocks.0.hook_resid_pre", "blocks.1.attn.hook_z"


def zero(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    return torch.zeros_like(activation)


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def through_dill(value: Any) -> Any:
    return dill.loads(dill.dumps(value))


def through_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


PICKLED = pytest.mark.parametrize("sent", [through_pickle, through_dill, through_torch])
Sent = Callable[[Any], Any]


def answers(model: HookedTransformer) -> list[torch.Tensor]:
    """What a pass gives, one with a hook, and a cache, all without gradients."""
    edited = model.run_with_hooks(tokens(), fwd_hooks=[(RESIDUAL, zero)])
    return [model(tokens()).detach(), edited.detach(), model.run_with_cache(tokens(), names_filter=Z)[1][Z]]


def assert_alike(model: HookedTransformer, other: HookedTransformer) -> None:
    for theirs, ours in zip(answers(other), answers(model), strict=True):
        assert torch.equal(theirs, ours)


@PICKLED
@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_it_comes_back_hooked(kind: str, tokenizer: Any, with_tokenizer: bool, sent: Sent) -> None:
    model = make_model_of(kind, tokenizer if with_tokenizer else None)
    loaded = sent(model)
    assert type(loaded) is HookedTransformer
    assert_alike(model, loaded)
    assert loaded.instrumentation.model is loaded.hf_model.base_model
    assert loaded.hook_dict[Z] is loaded.blocks[1].attn.hook_z is loaded.instrumentation[Z]
    assert loaded.cfg == model.cfg
    loaded.blocks[0].attn.W_Q = torch.zeros_like(loaded.blocks[0].attn.W_Q)
    assert not torch.equal(loaded(tokens()), model(tokens()))
    if with_tokenizer:
        assert torch.equal(loaded.to_tokens("a b"), model.to_tokens("a b"))
    with pytest.raises(UnknownHookError, match="nope"):
        loaded.add_hook("nope", zero)


@PICKLED
def test_its_parts_come_back_as_those_of_one_model(model: HookedTransformer, sent: Sent) -> None:
    blocks, points, hf_model, run, loaded = sent((model.blocks, model.hook_dict, model.hf_model, model.forward, model))
    assert blocks[0] is loaded.blocks[0]
    assert points[Z] is loaded.hook_dict[Z]
    assert hf_model is loaded.hf_model
    assert torch.equal(run(tokens()), model(tokens()))


@PICKLED
def test_a_part_alone_brings_its_model(model: HookedTransformer, sent: Sent) -> None:
    residual = model(tokens(), stop_at_layer=1)
    block = sent(model.blocks[1])
    assert torch.equal(block(residual), model.blocks[1](residual))
    block.hook_resid_pre.add_hook(zero)
    assert not torch.equal(block(residual), model.blocks[1](residual))
    assert torch.equal(sent(model.unembed).W_U, model.W_U)
    assert sent(model.blocks[0].attn.hook_z).name == "blocks.0.attn.hook_z"


@PICKLED
def test_a_cache_comes_back_with_its_model(model: HookedTransformer, sent: Sent) -> None:
    _, cache = model.run_with_cache(tokens())
    loaded = sent(cache)
    assert list(loaded) == list(cache)
    assert torch.equal(loaded.stack_head_results(layer=1, apply_ln=True), cache.stack_head_results(1, apply_ln=True))


def test_processed_weights_come_back_processed(model: HookedTransformer) -> None:
    plain = model(tokens())
    model.process_weights_()
    loaded = through_pickle(model)
    assert torch.equal(loaded(tokens()), model(tokens()))
    loaded.undo_processing()
    assert torch.equal(loaded(tokens()), plain)


@PICKLED
def test_hooks_that_are_on_stay_here_and_it_says_so(model: HookedTransformer, sent: Sent) -> None:
    plain = model(tokens())
    with model.hooks(fwd_hooks=[(RESIDUAL, zero)]):
        edited = model(tokens())
        model.add_caching_hooks([Z])
        with pytest.warns(HooksLeftBehindWarning, match=rf"2 of its hook points have hooks.*{RESIDUAL}"):
            loaded = sent(model)
        assert torch.equal(model(tokens()), edited)
    model.reset_hooks()
    assert torch.equal(loaded(tokens()), plain)
    assert not any(point.is_active() for point in loaded.hook_dict.values())
    assert loaded.is_caching is False
    assert loaded.context_level == 0
    with warnings.catch_warnings(action="error"):
        sent(model)


def test_a_deep_copy_has_the_hooks_that_are_on_and_says_nothing(model: HookedTransformer) -> None:
    plain = model(tokens())
    with model.hooks(fwd_hooks=[(RESIDUAL, zero)]):
        edited = model(tokens())
        duplicate = copy.deepcopy(model)
        assert copy.copy(model.instrumentation) is model.instrumentation
        assert duplicate.context_level == 1
    assert torch.equal(model(tokens()), plain)
    assert torch.equal(duplicate(tokens()), edited)
    duplicate.reset_hooks()
    assert_alike(model, duplicate)


@PICKLED
def test_removed_hook_points_are_refused(model: HookedTransformer, sent: Sent) -> None:
    block, point = model.blocks[1], model.hook_dict[Z]
    plain = model(tokens())
    model.instrumentation.remove()
    for each in (model, block, point, model.hook_dict):
        with pytest.raises(NotInstrumentedError, match="were removed"):
            sent(each)
    duplicate = copy.deepcopy(model)
    assert torch.equal(duplicate(tokens()), plain)
    with pytest.raises(NotInstrumentedError, match="were removed"):
        duplicate.run_with_cache(tokens())


def _answers_there(model: HookedTransformer) -> list[Any]:
    torch.set_num_threads(1)
    # Tensors would be shared with a process that is gone by then.
    return [each.tolist() for each in answers(model)]


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_it_works_in_a_spawned_process(kind: str, tokenizer: Any) -> None:
    model = make_model_of(kind, tokenizer).cpu()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_answers_there, (model,))
    assert there == [each.tolist() for each in answers(model)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_a_function_that_holds_it_maps_a_dataset_in_processes(kind: str, tmp_path: Path) -> None:
    model = make_model_of(kind).cpu()
    rows = datasets.Dataset.from_dict({"tokens": tokens().tolist()})

    def mapped(number: int | None) -> Any:
        def add_answers(row: dict[str, Any]) -> dict[str, Any]:
            row_tokens = torch.tensor([row["tokens"]])
            edited = model.run_with_hooks(row_tokens, fwd_hooks=[(RESIDUAL, zero)])
            cache = model.run_with_cache(row_tokens, names_filter=Z)[1]
            return {"edited": edited[0].tolist(), "z": cache[Z][0].tolist()}

        return rows.map(add_answers, num_proc=number, load_from_cache_file=False)[:]

    here = mapped(None)
    assert mapped(2) == here
    assert here["z"] != [[]] * 2
    model.add_hook(RESIDUAL, zero)
    with pytest.warns(HooksLeftBehindWarning):
        assert mapped(2) == here
