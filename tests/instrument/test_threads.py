"""Models hooked and run on several threads."""

import copy
import sys
import threading
from typing import Any

import torch

import mishformer_lens
from tests.instrument.live import logits, zero
from tests.models import Case, make_model, make_tokens
from tests.recording import hooked


def test_two_threads_hook_and_run_their_own_models(kind: str) -> None:
    expected = logits(make_model(Case(kind)))
    found: dict[int, list[bool]] = {}
    start = threading.Barrier(2)

    def work(number: int) -> None:
        model = make_model(Case(kind))
        start.wait()
        points = mishformer_lens.instrument(model).hook_points
        names = ["blocks.0.hook_q_input", "blocks.1.hook_attn_in", f"blocks.{number}.hook_mlp_out"]
        equal = []
        for _ in range(20):
            equal.append(torch.equal(logits(model), expected))
            for name in names:
                points[name].add_hook(lambda activation, hook: activation * 0.5)
            equal.append(not torch.equal(logits(model), expected))
            for name in names:
                points[name].remove_hooks()
        found[number] = equal

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {0, 1}
    assert all(all(each) for each in found.values())


def test_one_hooked_model_runs_on_two_threads(model: Any) -> None:
    points = mishformer_lens.instrument(model).hook_points
    # Split inputs travel from the block to its attention: not by way of another thread's pass.
    edits = {"blocks.0.hook_q_input": lambda activation, hook: activation * 0.5}
    inputs = [make_tokens(batch, pos) for batch, pos in ((2, 9), (3, 5))]
    results: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    with hooked(points, edits), torch.no_grad():
        expected = [model(each).logits for each in inputs]
        start = threading.Barrier(2)

        def work(number: int) -> None:
            start.wait()
            with torch.no_grad():
                for _ in range(20):
                    results[number].append(model(inputs[number]).logits)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(2):
        assert len(results[number]) == 20
        assert all(torch.equal(each, expected[number]) for each in results[number])


def test_a_hook_acts_while_another_thread_attaches_and_removes_hooks_beside_it(model: Any) -> None:
    points = mishformer_lens.instrument(model).hook_points
    found: list[bool] = []
    before = sys.getswitchinterval()
    with hooked(points, {"blocks.0.attn.hook_z": zero}):
        expected = logits(model)
        stop = threading.Event()

        def toggle() -> None:
            while not stop.is_set():
                points["blocks.0.attn.hook_v"].add_hook(lambda activation, hook: None)
                points["blocks.0.attn.hook_v"].remove_hooks()

        thread = threading.Thread(target=toggle)
        try:
            # Else one thread has the interpreter for 5 ms at a time.
            sys.setswitchinterval(1e-6)
            thread.start()
            found.extend(torch.equal(logits(model), expected) for _ in range(50))
        finally:
            stop.set()
            thread.join()
            sys.setswitchinterval(before)
    assert len(found) == 50
    assert all(found)


def test_observers_that_come_and_go_on_two_threads_are_counted(kind: str, model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    before, start = sys.getswitchinterval(), threading.Barrier(2)

    def work(number: int) -> None:
        start.wait()
        for _ in range(200):
            with instrumentation.caching([f"blocks.{number}.hook_resid_pre"]):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    try:
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert instrumentation.observers == 0
    # Else an export would be refused for a cache that is gone.
    assert [type(module) for module in model.modules()] == [type(module) for module in make_model(Case(kind)).modules()]


def test_copies_that_are_made_on_two_threads_are_each_hooked_by_itself(model: Any) -> None:
    mishformer_lens.instrument(model)
    copies: list[Any] = []
    threads = [threading.Thread(target=lambda: copies.append(copy.deepcopy(model))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # All of them at once: one that nobody holds is gone, and the next may lie where it lay.
    found = [mishformer_lens.instrument(each) for each in (model, *copies)]
    assert len({id(each) for each in found}) == 3
