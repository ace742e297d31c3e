"""A pytest plugin: what every test did and what its models gave, on plain models or on hooked ones.

`--models`: plain; idle, every model of our families is hooked when it is made; observed, and every hook point of it is
observed, but for the attention pattern of layers with a fused kernel: these leave their kernel for it, and warn.
`--record FILE` is where the outcomes go.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.eval_frame import OptimizedModule
from transformers import GenerationMixin, PreTrainedModel

import mishformer_lens
from mishformer_lens.patchers import FAMILIES

KINDS = ("plain", "idle", "observed")
LEAVE_THE_KERNEL = ("hook_attn_scores", "hook_pattern")
WORST_LAST = ("passed", "skipped", "xfailed", "failed")


class Watch:
    """What happens in the test that runs now.

    Attributes:
        outputs: class and digest of everything that models gave, in order.
        activations: how many were seen by observers, by hook point without its block.
        hooked: how many models were hooked.
    """

    def __init__(self) -> None:
        self.kind = "plain"
        self.outputs: list[str] = []
        self.activations: Counter[str] = Counter()
        self.hooked = 0
        self.depth = 0
        self.last: PreTrainedModel | None = None

    def begin(self) -> None:
        """A test begins: everything is as at the beginning of every other run."""
        self.outputs, self.activations, self.hooked, self.depth, self.last = [], Counter(), 0, 0, None
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)

    def hook(self, base: torch.nn.Module) -> None:
        """Hooks a base model, as the kind of run wants it."""
        if self.kind == "plain":
            return
        instrumentation = mishformer_lens.instrument(base)
        self.hooked += 1
        if self.kind == "observed":
            eager = base.config._attn_implementation == "eager"  # type: ignore[union-attr]
            for name, point in instrumentation.hook_points.items():
                if not eager and name.endswith(LEAVE_THE_KERNEL):
                    point.remove_observer(_look)
                elif not point.is_active():
                    point.add_observer(_look)
                self.activations[_kind(name)] += 0

    def note(self, name: str, value: object) -> None:
        """Takes down what a model gave."""
        digest = hashlib.sha256()
        for part in parts(value, set()):
            digest.update(part)
        self.outputs.append(f"{name} {digest.hexdigest()[:16]}")


WATCH = Watch()

RECORD: dict[str, dict[str, Any]] = {}
"""What every test did, by its id: the fields of tools.upstream.compare.Result."""


def _look(_: torch.Tensor, hook_point: Any) -> None:
    # Inside compiled code a count would be compiled in, and each of its values compiled anew.
    if not torch.compiler.is_compiling():
        WATCH.activations[_kind(hook_point.name)] += 1


def _kind(name: str) -> str:
    """The name of a hook point without its block."""
    return name.split(".", 2)[-1] if name.startswith("blocks.") else name


def parts(value: object, seen: set[int]) -> Iterator[bytes]:
    """Bytes that differ where two outputs differ: of every tensor its dtype, its shape and its bits."""
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} {value.device.type}".encode()
        if value.device.type == "cpu" and not value.is_sparse:
            yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return
    if id(value) in seen:
        return
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name).encode()
            yield from parts(each, seen)
    elif isinstance(value, (list, tuple)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for each in value:
            yield from parts(each, seen)
    elif isinstance(value, (bool, int, float, str, type(None))):
        yield repr(value).encode()
    elif type(value).__module__ == "transformers.cache_utils":
        # A key-value cache, and in later releases its layers.
        seen.add(id(value))
        yield type(value).__name__.encode()
        yield from parts(dict(sorted(vars(value).items())), seen)


def _traced() -> bool:
    """Whether tensors have no values now, or other ones than a caller sees."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or bool(torch.utils._python_dispatch._get_current_dispatch_mode_stack())
    )


def _call(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
    # By the name: tracers put something of theirs in its place.
    if _traced() or WATCH.depth:
        return torch.nn.Module.__call__(self, *args, **kwargs)
    # Those that were copied or loaded were not made.
    for part in self.modules():
        if isinstance(part, BASES):
            WATCH.hook(part)
    WATCH.depth += 1
    try:
        result = torch.nn.Module.__call__(self, *args, **kwargs)
    finally:
        WATCH.depth -= 1
    WATCH.last = self
    WATCH.note(type(self).__name__, result)
    return result


BASES: tuple[type[torch.nn.Module], ...] = ()
"""The base model of every family that the release has."""


def _watch_models() -> None:
    global BASES
    families = [FAMILIES[name] for name, variant in mishformer_lens.variants.items() if variant is not None]
    BASES = tuple(getattr(importlib.import_module(each.module_name), each.base_model) for each in families)
    PreTrainedModel.__call__ = _call
    _after(GenerationMixin, "generate", lambda self, result: WATCH.note(f"{type(self).__name__}.generate", result))
    _after(OptimizedModule, "__call__", lambda _, result: WATCH.note("compiled", result))
    _after(torch.Tensor, "backward", _note_gradients)
    for cls in BASES:
        _after(cls, "__init__", lambda self, _: WATCH.hook(self))


def _note_gradients(_: torch.Tensor, __: object) -> None:
    if WATCH.last is not None and not _traced():
        WATCH.note("gradients", {name: each.grad for name, each in WATCH.last.named_parameters()})


def _after(owner: Any, name: str, act: Any) -> None:
    """Calls `act(self, result)` after a method."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        act(self, result)
        return result

    setattr(owner, name, method)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--models", choices=KINDS, default="plain")
    parser.addoption("--record", type=Path)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    WATCH.kind = config.getoption("models")
    _watch_models()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    WATCH.begin()
    try:
        return (yield)
    finally:
        RECORD.setdefault(item.nodeid, {}).update(
            outputs=WATCH.outputs, activations=WATCH.activations, hooked=WATCH.hooked
        )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    test = RECORD.setdefault(report.nodeid, {})
    outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    # A test has several reports, and one more for each subtest.
    if WORST_LAST.index(outcome) >= WORST_LAST.index(test.setdefault("outcome", "passed")):
        test["outcome"], test["reason"] = outcome, _reason(report) if outcome != "passed" else ""


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        path: Path = session.config.getoption("record")
        path.write_text(json.dumps(RECORD, indent=1, sort_keys=True), encoding="utf-8")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)[:2000]
