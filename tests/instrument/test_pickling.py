"""Hook points that are pickled, with their model or alone, here and in another process."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import NotInstrumentedError
from tests.instrument.live import logits, trace, zero
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, hooked

NAME = "blocks.1.hook_mlp_out"


def test_an_instrumentation_comes_back_with_its_model(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    loaded, theirs = pickle.loads(pickle.dumps((model, instrumentation)))
    assert theirs.model is loaded.base_model
    assert mishformer_lens.instrument(loaded) is theirs
    expected = logits(model)
    assert_same(logits(loaded), expected)
    with theirs.caching([NAME]) as cache:
        logits(loaded)
    assert list(cache) == [NAME]
    with hooked(theirs.hook_points, {NAME: zero}):
        assert not torch.equal(logits(loaded), expected)
    assert_same(logits(model), expected)


def test_a_hook_point_comes_back_as_that_of_the_loaded_model(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    loaded, point, theirs = pickle.loads(pickle.dumps((model, instrumentation[NAME], instrumentation)))
    assert point is theirs[NAME]
    expected = logits(loaded)
    point.add_hook(zero)
    assert not torch.equal(logits(loaded), expected)


def test_what_was_removed_is_not_pickled(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    point = instrumentation[NAME]
    instrumentation.remove()
    for each in (instrumentation, point):
        with pytest.raises(NotInstrumentedError, match="were removed"):
            pickle.dumps(each)
    pickle.dumps(model)


def test_a_model_that_is_pickled_while_somebody_listens_is_a_plain_one(kind: str, model: Any) -> None:
    plain = trace(model)
    expected = logits(model)
    with mishformer_lens.instrument(model).caching():
        saved = io.BytesIO()
        torch.save(model, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    for key in ("classes", "attributes", "state dict", "modules", "repr"):
        assert trace(loaded)[key] == plain[key]
    assert_same(logits(loaded), expected)


IN_ANOTHER_PROCESS = """
import pickle, sys
import torch
torch.set_num_threads(1)
model, instrumentation, tokens = pickle.load(open(sys.argv[1], "rb"))
with instrumentation.caching(["blocks.1.hook_mlp_out"]) as cache, torch.no_grad():
    logits = model(tokens).logits
pickle.dump((logits, cache["blocks.1.hook_mlp_out"]), open(sys.argv[1], "wb"))
"""


def test_hook_points_work_in_another_process(kind: str, tmp_path: Path) -> None:
    model = make_model(Case(kind)).cpu()
    instrumentation = mishformer_lens.instrument(model)
    tokens, file = make_tokens().cpu(), tmp_path / "hooked.pickle"
    file.write_bytes(pickle.dumps((model, instrumentation, tokens)))
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(file)], check=True)
    with instrumentation.caching([NAME]) as cache, torch.no_grad():
        expected = model(tokens).logits
    assert_same(pickle.loads(file.read_bytes()), (expected, cache[NAME]))


def test_a_model_that_is_copied_while_somebody_listens_is_hooked_alike(model: Any) -> None:
    expected = logits(model)
    instrumentation = mishformer_lens.instrument(model)
    instrumentation[NAME].add_hook(zero)
    edited = logits(model)
    duplicate = copy.deepcopy(model)
    instrumentation[NAME].remove_hooks()
    assert_same(logits(model), expected)
    assert_same(logits(duplicate), edited)
    theirs = mishformer_lens.instrument(duplicate)
    assert theirs is not instrumentation
    theirs[NAME].remove_hooks()
    assert_same(logits(duplicate), expected)
    for key in ("classes", "attributes"):
        assert trace(duplicate)[key] == trace(model)[key]


def test_a_block_that_is_copied_alone_keeps_its_hooks_and_copies_nothing_else(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    block: Any = instrumentation.blocks.get_submodule("1")
    instrumentation["blocks.1.hook_resid_post"].add_hook(zero)
    memo: dict[int, Any] = {}
    duplicate: Any = copy.deepcopy(block, memo)
    assert id(instrumentation.model) not in memo
    assert id(instrumentation) not in memo
    assert type(duplicate) is type(block)
    duplicate.hook_resid_post.remove_hooks()
    assert type(duplicate) is not type(block)
    instrumentation["blocks.1.hook_resid_post"].remove_hooks()
    assert type(duplicate) is type(block)
    assert list(vars(duplicate)) == list(vars(block))
