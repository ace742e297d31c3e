"""What other code may do with a module in the very time in which it is lent a patched class."""

import copy
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import NotInstrumentedError, TracedCacheError, UnsupportedModelError
from mishformer_lens.partial import Stopped, start_at, stop_before
from tests.instrument.live import logits, trace, zero
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, hooked

NAME = "blocks.1.mlp.hook_post"


def mlp_of(model: Any) -> Any:
    return mishformer_lens.instrument(model).place(1, "mlp").find()


def test_hook_points_may_be_removed_and_put_on_anew_in_the_middle_of_a_pass(model: Any) -> None:
    before, expected = trace(model), logits(model)
    old = mishformer_lens.instrument(model)
    seen: list[Any] = []

    def renew(activation: torch.Tensor, hook: Any) -> None:
        old.remove()
        seen.append(mishformer_lens.instrument(model))
        seen[0][NAME].add_hook(zero)

    old["blocks.0.mlp.hook_pre"].add_hook(renew)
    edited = logits(model)
    assert not torch.equal(edited, expected)
    assert_same(logits(model), edited)
    seen[0].remove()
    assert_same(logits(model), expected)
    assert trace(model) == before


def test_a_forward_that_others_keep_works_when_the_class_is_taken_back(model: Any) -> None:
    expected = logits(model)
    mlp = mlp_of(model)
    with mishformer_lens.instrument(model).caching([NAME]):
        kept = mlp.forward
        mlp.forward = lambda *args, **kwargs: kept(*args, **kwargs)
        assert_same(logits(model), expected)
    assert_same(logits(model), expected)


@pytest.mark.parametrize("how", ["start_at", "stop_before"])
def test_a_hook_in_a_partial_pass_may_run_the_whole_model(model: Any, how: str) -> None:
    instrumentation = mishformer_lens.instrument(model)
    expected = logits(model)
    with instrumentation.caching(["blocks.1.hook_resid_pre"]) as cache:
        logits(model)
    residual = cache["blocks.1.hook_resid_pre"]
    inner: list[torch.Tensor] = []
    point = instrumentation["blocks.1.mlp.hook_pre" if how == "start_at" else "blocks.0.mlp.hook_pre"]

    def run_all(activation: torch.Tensor, hook: Any) -> None:
        point.remove_hooks()
        with instrumentation.caching(["hook_embed"]) as seen:
            inner.append(logits(model))
        assert list(seen) == ["hook_embed"]

    point.add_hook(run_all)
    if how == "start_at":
        with start_at(instrumentation, 1, residual):
            assert_same(logits(model), expected)
    else:
        with (
            stop_before(instrumentation.model, instrumentation.place(1, "").find()),
            pytest.raises(Stopped) as stopped,
        ):
            logits(model)
        assert_same(stopped.value.residual, residual)
    assert_same(inner, [expected])
    assert_same(logits(model), expected)


def test_observers_stay_with_the_original_of_a_copy(kind: str, model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching() as cache:
        duplicate = copy.deepcopy(model)
        assert trace(duplicate)["classes"] == trace(make_model(Case(kind)))["classes"]
        logits(duplicate)
        assert not cache
    with mishformer_lens.instrument(model), mishformer_lens.instrument(copy.deepcopy(model)) as theirs:
        assert theirs.active
    assert not theirs.active


def test_a_part_that_was_copied_alone_takes_no_new_hooks(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    instrumentation["blocks.1.mlp.hook_pre"].add_hook(zero)
    duplicate: Any = copy.deepcopy(instrumentation.place(1, "").find())
    with pytest.raises(NotInstrumentedError, match="copied without its model"):
        duplicate.attention_inputs.hook_attn_in.add_hook(zero)


class Watcher:
    def __init__(self) -> None:
        self.calls = 0

    def watch(self, *_: object) -> None:
        self.calls += 1


def test_an_observer_comes_off_as_often_as_it_was_put_on(model: Any) -> None:
    before = trace(model)
    instrumentation, watcher = mishformer_lens.instrument(model), Watcher()
    point = instrumentation[NAME]
    with instrumentation.observing({NAME: watcher.watch}):
        with instrumentation.observing({NAME: watcher.watch}):
            point.add_observer(zero)
            logits(model)
        logits(model)
        point.remove_observer(zero)
        point.remove_observer(zero)
        logits(model)
    assert watcher.calls == 4
    logits(model)
    assert watcher.calls == 4
    assert trace(model) == before


def test_whatever_ends_lending_leaves_everything_as_it_was(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trace(model)
    instrumentation = mishformer_lens.instrument(model)
    for error in (KeyboardInterrupt, UnsupportedModelError):

        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error("now")

        with monkeypatch.context() as patch:
            patch.setattr(instrumentation, "lent_class", fail)
            with pytest.raises(error):
                instrumentation[NAME].add_hook(zero)
            with pytest.raises(error), instrumentation.caching():
                pass
        assert trace(model) == before
        assert not any(point.listening for point in instrumentation.hook_points.values())
    with hooked(instrumentation.hook_points, {NAME: zero}):
        logits(model)
    assert trace(model) == before


# It is deprecated, and looks at all attributes of a module, deprecated ones too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_cache_is_refused_while_a_model_is_traced(model: Any) -> None:
    model.config.use_cache, model.config.return_dict = False, False
    with (
        mishformer_lens.instrument(model).caching([NAME]),
        pytest.raises(TracedCacheError, match="Leave the context"),
    ):
        torch.jit.trace(model, make_tokens(), strict=False)


def test_a_tool_that_patches_every_call_sees_every_call(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching():
        logits(model)
    calls: list[object] = []
    original = torch.nn.Module.__call__

    def counted(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", counted)
    logits(model)
    plain = len(calls)
    with instrumentation.caching():
        logits(model)
    assert len(calls) == 2 * plain
