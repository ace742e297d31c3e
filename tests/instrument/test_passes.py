"""Hooks that come and go, and parts that are replaced, between and inside of passes of every kind."""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import NotInstrumentedError
from tests.instrument.live import logits, trace, zero
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same

NAME = "blocks.1.mlp.hook_post"

REPLACED = r"mlp is another module than when its hook points got hooks"


def compiled(model: Any, *, fullgraph: bool) -> Callable[[], torch.Tensor]:
    """The logits of a model that torch compiles. The graphs run as they are, without a code generator."""
    torch._dynamo.reset()
    faster = torch.compile(model, backend="eager", fullgraph=fullgraph)

    @torch.no_grad()
    def run() -> torch.Tensor:
        result: torch.Tensor = faster(make_tokens(), use_cache=False).logits
        return result

    return run


def remove_handle(point: Any) -> None:
    handle: Any = point.register_forward_hook(lambda *_: handle.remove())


def remove_all(point: Any) -> None:
    point.add_hook(lambda activation, hook: point.remove_hooks())


def test_a_hook_may_take_itself_off_in_the_middle_of_a_compiled_pass() -> None:
    # One kind alone: where a graph breaks, torch compiles for seconds.
    model = make_model(Case("gpt2"))
    before, expected = trace(model.base_model), logits(model)
    run = compiled(model, fullgraph=False)
    point = mishformer_lens.instrument(model)["blocks.1.hook_mlp_out"]
    remove_all(point)
    assert_same(run(), expected)
    assert not point.is_active()
    assert trace(model.base_model) == before


def test_a_hook_that_takes_itself_off_is_refused_by_torch_where_a_pass_must_be_one_graph(model: Any) -> None:
    before, expected = trace(model.base_model), logits(model)
    run = compiled(model, fullgraph=True)
    point = mishformer_lens.instrument(model)[NAME]
    remove_all(point)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        run()
    assert point.is_active()
    point.remove_hooks()
    assert trace(model.base_model) == before
    assert_same(run(), expected)


@pytest.mark.parametrize("name", ["blocks.1.ln1.hook_scale", "blocks.1.attn.hook_result"])
def test_what_a_model_does_not_compute_itself_is_edited_where_a_pass_must_be_one_graph(model: Any, name: str) -> None:
    point = mishformer_lens.instrument(model)[name]
    point.add_hook(lambda activation, hook: activation * 1.25)
    expected = logits(model)
    assert_same(compiled(model, fullgraph=True)(), expected)
    point.remove_hooks()


def replace_mlp(kind: str, model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    other = mishformer_lens.instrument(make_model(Case(kind))).place(1, "mlp").find()
    model.base_model.set_submodule(instrumentation.place(1, "mlp").path, other)


@pytest.mark.parametrize(("when", "fullgraph"), [("before it is compiled", True), ("after", False)])
def test_a_part_that_is_replaced_while_it_has_hooks_is_no_more_passed_over_when_compiled(
    kind: str, model: Any, when: str, fullgraph: bool
) -> None:
    expected = logits(model)
    run = compiled(model, fullgraph=fullgraph)
    point = mishformer_lens.instrument(model)[NAME]
    point.add_hook(zero)
    if when == "after":
        assert not torch.equal(run(), expected)
    replace_mlp(kind, model)
    # Of an error in what must be one graph, torch makes one of its own, with ours in its text.
    with pytest.raises(RuntimeError if fullgraph else NotInstrumentedError, match=REPLACED):
        run()
    point.remove_hooks()
    assert_same(run(), expected)


def arguments_of(model: Any, block: Any) -> tuple[Any, Any]:
    """What a block is called with in a pass of its model."""
    seen: list[tuple[Any, Any]] = []
    handle = block.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    with torch.no_grad():
        model(make_tokens(), use_cache=False)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("stays", [False, True])
def test_a_block_that_is_called_by_itself_leaves_nothing_lent_behind(model: Any, stays: bool) -> None:
    instrumentation = mishformer_lens.instrument(model)
    block = instrumentation.place(1, "").find()
    args, kwargs = arguments_of(model, block)
    before, mlp = trace(block), instrumentation.place(1, "mlp").find()
    cls = type(mlp)
    if stays:
        instrumentation["blocks.1.hook_resid_post"].add_hook(lambda activation, hook: None)
    remove_handle(instrumentation[NAME])
    block(*args, **kwargs)
    assert type(mlp) is cls
    instrumentation["blocks.1.hook_resid_post"].remove_hooks()
    assert trace(block) == before


def test_a_block_that_is_called_by_itself_refuses_a_part_that_was_replaced(kind: str, model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    block = instrumentation.place(1, "").find()
    args, kwargs = arguments_of(model, block)
    instrumentation[NAME].add_hook(zero)
    replace_mlp(kind, model)
    with pytest.raises(NotInstrumentedError, match=REPLACED):
        block(*args, **kwargs)
    instrumentation[NAME].remove_hooks()
    block(*args, **kwargs)


def test_what_a_pass_on_another_thread_still_needs_is_taken_back_after_it(model: Any) -> None:
    before, expected = trace(model), logits(model)
    instrumentation = mishformer_lens.instrument(model)
    inside, go_on = threading.Event(), threading.Event()

    def wait(activation: torch.Tensor, hook: Any) -> None:
        inside.set()
        assert go_on.wait(60)

    found: list[torch.Tensor] = []
    instrumentation["blocks.0.mlp.hook_pre"].add_hook(wait)
    instrumentation[NAME].add_hook(lambda activation, hook: None)
    thread = threading.Thread(target=lambda: found.append(logits(model)))
    thread.start()
    assert inside.wait(60)
    for name in ("blocks.0.mlp.hook_pre", NAME):
        instrumentation[name].remove_hooks()
    # A second pass begins and ends while the first still runs.
    assert_same(logits(model), expected)
    go_on.set()
    thread.join()
    assert_same(found, [expected])
    assert trace(model) == before


@pytest.mark.parametrize("part", ["", "mlp", "attn", "ln1"])
def test_a_part_that_was_replaced_is_not_kept_in_memory(kind: str, model: Any, part: str) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching():
        logits(model)
    place = instrumentation.place(1, part)
    kept = [weakref.ref(module) for module in place.find().modules()]
    other = mishformer_lens.instrument(make_model(Case(kind))).place(1, part).find()
    model.base_model.set_submodule(place.path, other)
    gc.collect()
    assert [module() for module in kept] == [None] * len(kept)
    with instrumentation.caching() as cache:
        logits(model)
    assert list(cache) == instrumentation.unflagged_names
