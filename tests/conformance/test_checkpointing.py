"""Gradient checkpointing on a hooked model: blocks without hooks are checkpointed, blocks with hooks are not."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import CheckpointingWarning
from tests import capabilities
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same

REENTRANT = pytest.mark.parametrize("use_reentrant", [False, True], ids=["not reentrant", "reentrant"])


def training(kind: str, use_reentrant: bool | None = None) -> Any:
    """A model in training mode without dropout; checkpointed, if it is said how."""
    model = make_model(Case(kind)).train()
    if use_reentrant is not None:
        capabilities.enable_checkpointing(model, use_reentrant=use_reentrant)
    return model


def loss(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(make_tokens(), labels=make_tokens(), use_cache=False).loss
    return result


def gradients(model: Any) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in model.parameters()]


def mlp_passes(model: Any) -> list[list[int]]:
    """For each block, one entry for each pass through its MLP from now on."""
    instrumentation = mishformer_lens.instrument(model)
    passes: list[list[int]] = []
    for block in instrumentation.blocks.children():
        passes.append([])
        mlp = block.get_submodule(instrumentation.family.components["mlp"])
        mlp.register_forward_pre_hook(lambda *_, seen=passes[-1]: seen.append(1))
    return passes


@contextlib.contextmanager
def warned() -> Iterator[None]:
    with pytest.warns(CheckpointingWarning, match="Blocks without hooks are checkpointed as ever"):
        yield


@REENTRANT
def test_an_idle_model_is_checkpointed(kind: str, use_reentrant: bool) -> None:
    model = training(kind, use_reentrant)
    passes = mlp_passes(model)
    loss(model).backward()
    assert [len(each) for each in passes] == [2, 2]


@REENTRANT
def test_a_block_with_an_edit_has_the_gradient_that_it_has_without_checkpointing(kind: str, use_reentrant: bool) -> None:
    plain, model = training(kind), training(kind, use_reentrant)
    for each in (plain, model):
        point = mishformer_lens.instrument(each)["blocks.1.mlp.hook_post"]
        point.add_hook(lambda activation, hook: activation * 3)
        with warned() if each is model else contextlib.nullcontext():
            result = loss(each)
        # As at the end of run_with_hooks: the hook is off when the gradient is computed.
        point.remove_hooks()
        result.backward()
    assert_same(gradients(model), gradients(plain))


@REENTRANT
def test_other_blocks_are_checkpointed_beside_one_with_hooks(kind: str, use_reentrant: bool) -> None:
    model = training(kind, use_reentrant)
    passes = mlp_passes(model)
    with warned(), mishformer_lens.instrument(model).caching(["blocks.1.attn.hook_pattern"]):
        loss(model).backward()
    assert [len(each) for each in passes] == [2, 1]


@REENTRANT
def test_activations_that_are_cached_change_no_gradient(kind: str, use_reentrant: bool) -> None:
    expected, model = training(kind, use_reentrant), training(kind, use_reentrant)
    loss(expected).backward()
    instrumentation = mishformer_lens.instrument(model)
    with warned(), instrumentation.caching() as cache:
        result = loss(model)
    result.backward()
    assert set(cache) == set(instrumentation.unflagged_names)
    assert_same(gradients(model), gradients(expected))


@REENTRANT
def test_a_hook_that_comes_between_forward_and_backward_acts_on_neither(kind: str, use_reentrant: bool) -> None:
    expected, model = training(kind, use_reentrant), training(kind, use_reentrant)
    loss(expected).backward()
    points = mishformer_lens.instrument(model).hook_points
    result = loss(model)
    for name in ("blocks.0.hook_resid_mid", "blocks.1.attn.hook_z", "blocks.1.ln2.hook_normalized"):
        if name in points:
            points[name].add_hook(lambda activation, hook: activation * 3)
    result.backward()
    assert_same(gradients(model), gradients(expected))
    with warned():
        assert not torch.equal(loss(model), loss(expected))


def test_nothing_is_said_where_nothing_is_checkpointed(kind: str) -> None:
    checkpointed = training(kind, False).eval()
    for model in (training(kind), checkpointed):
        with warnings.catch_warnings(), mishformer_lens.instrument(model).caching():
            warnings.simplefilter("error")
            loss(model)


def test_checkpointing_can_be_switched_while_hooks_are_on(kind: str) -> None:
    model = make_model(Case(kind)).train()
    with mishformer_lens.instrument(model).caching():
        capabilities.enable_checkpointing(model, use_reentrant=False)
        with warned():
            loss(model)
    passes = mlp_passes(model)
    loss(model).backward()
    assert [len(each) for each in passes] == [2, 2]
