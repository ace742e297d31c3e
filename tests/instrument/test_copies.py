"""Copying, saving, loading and pickling a hooked model."""

import copy
from pathlib import Path
from typing import Any

import torch

import mishformer_lens
from tests.instrument.live import logits, trace, zero
from tests.models import Case, make_model
from tests.recording import assert_same, hooked


def test_a_deepcopy_is_hooked_by_itself(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    duplicate = copy.deepcopy(model)
    theirs = mishformer_lens.instrument(duplicate)
    assert theirs is not instrumentation
    assert theirs.active
    assert theirs.model is duplicate.base_model
    assert list(theirs.hook_points) == list(instrumentation.hook_points)
    assert not set(map(id, theirs.hook_points.values())) & set(map(id, instrumentation.hook_points.values()))
    expected = logits(model)
    assert_same(logits(duplicate), expected)
    with hooked(theirs.hook_points, {"blocks.0.attn.hook_z": zero}):
        assert not torch.equal(logits(duplicate), expected)
        assert_same(logits(model), expected)
    with hooked(instrumentation.hook_points, {"blocks.0.hook_q_input": zero, "blocks.1.attn.hook_pattern": zero}):
        assert not torch.equal(logits(model), expected)
        assert_same(logits(duplicate), expected)


def test_a_copy_of_a_model_that_was_observed_is_observed_by_itself(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching() as first:
        logits(model)
    with hooked(instrumentation.hook_points, {"blocks.0.attn.hook_z": zero}):
        # With a hook on, what knows the hook points of the last cache is copied, too.
        duplicate = copy.deepcopy(model)
    theirs = mishformer_lens.instrument(duplicate)
    with theirs.caching() as of_the_copy:
        logits(model)
        assert not of_the_copy
        assert not any(point.listening for point in instrumentation.hook_points.values())
        logits(duplicate)
    assert not of_the_copy["blocks.0.attn.hook_z"].any()
    with instrumentation.caching() as second:
        logits(duplicate)
        assert not second
        logits(model)
    assert list(second) == list(first)
    for name, activation in first.items():
        assert torch.equal(second[name], activation), name
    assert not any(point.observers for point in (*theirs.hook_points.values(), *instrumentation.hook_points.values()))


def test_hook_points_of_a_deepcopy_are_removed_by_themselves(kind: str, model: Any) -> None:
    plain = trace(make_model(Case(kind)))
    instrumentation = mishformer_lens.instrument(model)
    duplicate = copy.deepcopy(model)
    mishformer_lens.instrument(duplicate).remove()
    for key in ("classes", "attributes", "state dict", "modules", "repr"):
        assert trace(duplicate)[key] == plain[key]
    assert instrumentation.active
    again = copy.deepcopy(model)
    instrumentation.remove()
    assert mishformer_lens.instrument(again).active


def test_save_pretrained_round_trip(kind: str, model: Any, tmp_path: Path) -> None:
    plain_folder, hooked_folder = tmp_path / "plain", tmp_path / "hooked"
    model.save_pretrained(plain_folder)
    # In some releases a GPT-NeoX configuration does not survive the round trip, with or without hooks.
    expected = logits(type(model).from_pretrained(plain_folder, attn_implementation="eager").eval().to(model.device))
    mishformer_lens.instrument(model)
    model.save_pretrained(hooked_folder)
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        assert (hooked_folder / name).read_bytes() == (plain_folder / name).read_bytes()
    loaded = type(model).from_pretrained(hooked_folder, attn_implementation="eager").eval()
    assert_same(logits(loaded.to(model.device)), expected)
    points = mishformer_lens.instrument(loaded).hook_points
    assert list(points) == list(mishformer_lens.instrument(model).hook_points)


def test_load_state_dict_of_a_hooked_model(kind: str, model: Any) -> None:
    expected = logits(model)
    mishformer_lens.instrument(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(state)
    assert_same(logits(model), expected)


def test_a_pickled_hooked_model_is_a_plain_one(kind: str, model: Any, tmp_path: Path) -> None:
    plain, expected = trace(model), logits(model)
    mishformer_lens.instrument(model)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    found = trace(loaded)
    for key in ("classes", "attributes", "state dict", "modules", "repr"):
        assert found[key] == plain[key]
    assert_same(logits(loaded), expected)
    points = mishformer_lens.instrument(loaded).hook_points
    with hooked(points, {"blocks.0.hook_mlp_out": zero}):
        assert not torch.equal(logits(loaded), expected)
