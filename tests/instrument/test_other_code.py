"""Hooked models beside other code that changes modules, classes and functions while they live."""

import importlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import mishformer_lens
from mishformer_lens.errors import NotInstrumentedError, ReplacedCodeError, TracedCacheError, UnsupportedModelError
from tests import capabilities
from tests.instrument.live import logits, trace, zero
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, hooked

NAME = "blocks.1.mlp.hook_post"


def part(model: Any, name: str) -> Any:
    """A part of the second block, by TransformerLens's name; with an empty name the block itself."""
    instrumentation = mishformer_lens.instrument(model)
    return instrumentation.place(1, name).find()


def owner_of(model: Any, name: str) -> tuple[nn.Module, str]:
    """The module that holds a part of the second block, and under which name."""
    path = mishformer_lens.instrument(model).place(1, name).path
    parent, _, attribute = path.rpartition(".")
    return model.base_model.get_submodule(parent), attribute


# --- forward on one module


def test_a_forward_that_does_not_run_patched_code_is_refused(model: Any) -> None:
    mlp = part(model, "mlp")
    original = mlp.forward
    mlp.forward = lambda *args, **kwargs: 2 * original(*args, **kwargs)
    before, expected = trace(model), logits(model)
    instrumentation = mishformer_lens.instrument(model)
    with pytest.raises(
        ReplacedCodeError, match=r"mlp was replaced, on this one module, by .*<lambda>.*test_other_code"
    ):
        instrumentation[NAME].add_hook(zero)
    with pytest.raises(ReplacedCodeError), instrumentation.caching([NAME]):
        pass
    assert not instrumentation[NAME].is_active()
    assert trace(model) == before
    with instrumentation.caching(["blocks.1.attn.hook_z"]) as cache:
        assert_same(logits(model), expected)
    assert list(cache) == ["blocks.1.attn.hook_z"]
    del mlp.forward
    with instrumentation.caching([NAME]) as cache:
        logits(model)
    assert list(cache) == [NAME]


def test_a_bound_forward_that_is_left_on_a_module_is_followed(model: Any) -> None:
    """As the recorders of transformers 4.54 to 5.1 leave one behind."""
    expected = logits(model)
    mlp = part(model, "mlp")
    mlp.forward = mlp.forward
    points = mishformer_lens.instrument(model).hook_points
    with hooked(points, {NAME: zero}):
        edited = logits(model)
        assert not torch.equal(edited, expected)
        mlp.forward = mlp.forward
        assert_same(logits(model), edited)
    assert_same(logits(model), expected)
    assert mlp.forward.__func__ is type(mlp).forward


@pytest.mark.parametrize("when", ["before", "during", "between"])
def test_a_model_runs_on_after_it_recorded_attentions(kind: str, when: str) -> None:
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    if when == "before":
        model(make_tokens(), output_attentions=True)
    with hooked(instrumentation.hook_points, {NAME: zero}):
        model(make_tokens(), output_attentions=when == "during")
    if when == "between":
        model(make_tokens(), output_attentions=True)
        with instrumentation.caching():
            model(make_tokens())
    instrumentation.remove()
    assert_same(logits(model), logits(plain))
    assert_same(
        model(make_tokens(), output_attentions=True).attentions, plain(make_tokens(), output_attentions=True).attentions
    )
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]


# --- classes and functions


@pytest.fixture
def patched_class(model: Any, monkeypatch: pytest.MonkeyPatch) -> type:
    cls = type(part(model, "mlp"))
    original = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, x: 2 * original(self, x))
    return cls


def test_a_class_that_is_patched_counts_for_idle_models(kind: str, model: Any, patched_class: type) -> None:
    assert_same(logits(model), logits(make_model(Case(kind))))
    assert not torch.equal(logits(model), torch.zeros(()))


def test_a_hook_in_a_patched_class_is_refused_by_name(model: Any, patched_class: type) -> None:
    instrumentation = mishformer_lens.instrument(model)
    expected = logits(model)
    with pytest.raises(ReplacedCodeError, match=rf"{patched_class.__name__}\.forward of .* was replaced by .*lambda"):
        instrumentation[NAME].add_hook(zero)
    with instrumentation.caching(["blocks.1.attn.hook_pattern", "blocks.1.hook_resid_post"]) as cache:
        assert_same(logits(model), expected)
    assert len(cache) == 2


def test_a_class_that_is_patched_while_somebody_listens_is_seen_by_the_next(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching([NAME]):
        pass
    cls = type(part(model, "mlp"))
    monkeypatch.setattr(cls, "forward", lambda self, x: x)
    with pytest.raises(ReplacedCodeError):
        instrumentation[NAME].add_hook(zero)
    monkeypatch.undo()
    instrumentation[NAME].add_hook(zero)


def attention_code(family: str) -> tuple[Any, str]:
    """Where the eager attention of a family is, and its name."""
    module = capabilities.modeling_module(family)
    if "eager_attention_forward" in vars(module):
        return module, "eager_attention_forward"
    return (module.GPT2Attention if family == "gpt2" else module.GPTNeoXAttention), "_attn"


def test_an_attention_function_that_is_replaced_is_never_passed_by(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = attention_code(Case(kind).family)
    original = getattr(owner, name)

    def mine(*args: Any, **kwargs: Any) -> Any:
        output, *others = original(*args, **kwargs)
        return 0.5 * output, *others

    monkeypatch.setattr(owner, name, mine)
    model = make_model(Case(kind))
    expected = logits(model)
    instrumentation = mishformer_lens.instrument(model)
    assert_same(logits(model), expected)
    with pytest.raises(ReplacedCodeError, match=rf"{name} of .* was replaced by .*\.mine "):
        instrumentation["blocks.1.attn.hook_pattern"].add_hook(zero)
    with instrumentation.caching([NAME]):
        assert_same(logits(model), expected)


def test_a_function_that_no_edit_touches_may_be_replaced_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(Case("gpt_neox"))
    instrumentation = mishformer_lens.instrument(model)
    names = ["blocks.0.attn.hook_rot_q", "blocks.1.attn.hook_z"]
    with instrumentation.caching(names):
        plain = logits(model)
    module = capabilities.modeling_module("gpt_neox")
    original = module.apply_rotary_pos_emb
    monkeypatch.setattr(module, "apply_rotary_pos_emb", lambda q, k, *args: [2 * x for x in original(q, k, *args)])
    expected = logits(model)
    assert not torch.equal(expected, plain)
    with instrumentation.caching(names):
        assert_same(logits(model), expected)


@pytest.fixture
def reloaded(kind: str) -> Iterator[types.ModuleType]:
    """A family's module, which the test may import anew: its old classes are put back afterwards."""
    module: types.ModuleType = capabilities.modeling_module(Case(kind).family)
    before = dict(vars(module))
    yield module
    vars(module).clear()
    vars(module).update(before)


def test_models_of_a_module_that_is_imported_anew_are_hooked(kind: str, reloaded: types.ModuleType) -> None:
    old = make_model(Case(kind))
    expected = logits(old)
    mishformer_lens.instrument(old).remove()
    importlib.reload(reloaded)
    new = vars(reloaded)[type(old).__name__](old.config).eval()
    new.load_state_dict(old.state_dict())
    for model in (new.to(old.device), old):
        with mishformer_lens.instrument(model) as instrumentation:
            with instrumentation.caching() as cache:
                assert_same(logits(model), expected)
            assert list(cache) == instrumentation.unflagged_names


# --- parts


def test_a_part_that_is_put_in_later_is_hooked(kind: str, model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching([NAME]):
        logits(model)
    owner, name = owner_of(model, "mlp")
    setattr(owner, name, part(make_model(Case(kind)), "mlp"))
    expected = logits(model)
    with instrumentation.caching([NAME]) as cache:
        assert_same(logits(model), expected)
    assert list(cache) == [NAME]


def test_a_part_that_is_replaced_while_it_has_hooks_is_not_passed_over_in_silence(kind: str, model: Any) -> None:
    point = mishformer_lens.instrument(model)[NAME]
    expected = logits(model)
    owner, name = owner_of(model, "mlp")
    old, new = getattr(owner, name), part(make_model(Case(kind)), "mlp")
    cls = type(old)
    point.add_hook(zero)
    setattr(owner, name, new)
    with pytest.raises(NotInstrumentedError, match=r"mlp is another module than when its hook points got hooks"):
        logits(model)
    point.remove_hooks()
    assert type(old) is type(new) is cls
    assert_same(logits(model), expected)
    point.add_hook(zero)
    assert not torch.equal(logits(model), expected)


def test_something_else_that_is_put_in_later_is_refused_at_the_hook(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    owner, name = owner_of(model, "mlp")
    setattr(owner, name, nn.Identity())
    with pytest.raises(UnsupportedModelError, match=r"Identity stands at .*mlp"):
        instrumentation[NAME].add_hook(zero)
    with instrumentation.caching(["blocks.1.hook_mlp_out"]) as cache:
        logits(model)
    assert list(cache) == ["blocks.1.hook_mlp_out"]


def test_layers_that_were_cut_off_have_no_hook_points(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    point = instrumentation[NAME]
    container = instrumentation.family.components["blocks"]
    setattr(model.base_model, container, nn.ModuleList(list(instrumentation.blocks.children())[:1]))
    model.config.num_hidden_layers = 1
    with pytest.raises(NotInstrumentedError, match=r"has no part .*1.* any more"):
        point.add_hook(zero)
    assert NAME not in instrumentation.hook_points
    with instrumentation.caching() as cache:
        logits(model)
    assert list(cache) == instrumentation.unflagged_names
    assert not [name for name in cache if name.startswith("blocks.1.")]


def test_one_block_at_two_places_is_refused(model: Any) -> None:
    blocks = mishformer_lens.instrument(model).blocks
    mishformer_lens.instrument(model).remove()
    blocks[1] = blocks[0]  # type: ignore[index, operator]
    before = trace(model)
    with pytest.raises(UnsupportedModelError, match=r"one module stands at \S+0 and at \S+1"):
        mishformer_lens.instrument(model)
    assert trace(model) == before


def test_an_attention_that_blocks_come_to_share_is_refused_at_the_hook(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    owner, name = owner_of(model, "attn")
    first = instrumentation.place(0, "attn").find()
    setattr(owner, name, first)
    instrumentation["blocks.0.attn.hook_z"].add_hook(lambda z, hook: None)
    with pytest.raises(UnsupportedModelError, match="a hook on one would fire for both"):
        instrumentation["blocks.1.attn.hook_z"].add_hook(zero)


# --- classes that stand in between


def test_a_class_between_with_a_forward_of_its_own_is_refused(model: Any) -> None:
    mlp = part(model, "mlp")
    original: Any = type(mlp)

    class Mine(original):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return hidden_states

    class Quiet(original):
        pass

    mlp.__class__ = Mine
    instrumentation = mishformer_lens.instrument(model)
    with pytest.raises(
        ReplacedCodeError, match=rf"Mine has a forward of its own in the place of {original.__name__}'s"
    ):
        instrumentation[NAME].add_hook(zero)
    assert type(mlp) is Mine
    mlp.__class__ = Quiet
    expected = logits(model)
    with hooked(instrumentation.hook_points, {NAME: zero}):
        assert isinstance(mlp, Quiet)
        assert not torch.equal(logits(model), expected)
    assert type(mlp) is Quiet


def test_a_model_made_of_the_class_of_one_that_is_listening_is_a_plain_one(kind: str, model: Any) -> None:
    plain = trace(make_model(Case(kind)))["classes"]
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching():
        base: Any = type(model.base_model)(model.config)
        assert [type(module) for module in base.modules()] == plain[1 : 1 + len(list(base.modules()))]
        with mishformer_lens.instrument(base).caching() as cache:
            base(make_tokens().to(base.device))
    assert len(cache) == len(instrumentation.unflagged_names)


# --- removal, while a pass runs


def test_hooks_and_caches_on_what_was_removed_are_refused(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    point = instrumentation[NAME]
    point.add_hook(zero)
    instrumentation.remove()
    for attach in (
        lambda: point.add_hook(zero),
        lambda: point.add_hook(zero, dir="bwd"),
        lambda: point.add_observer(zero),
        lambda: point.register_forward_pre_hook(zero),
        lambda: instrumentation["blocks.0.hook_resid_pre"].add_hook(zero),
        lambda: instrumentation.caching([NAME]).__enter__(),
        lambda: instrumentation.caching([]).__enter__(),
    ):
        with pytest.raises(NotInstrumentedError, match=r"were removed, so a hook on them would never fire"):
            attach()
    point.remove_hooks()
    mishformer_lens.instrument(model)[NAME].add_hook(zero)


def test_a_hook_may_take_itself_or_everything_off_in_the_middle_of_a_pass(model: Any) -> None:
    before, expected = trace(model), logits(model)
    instrumentation = mishformer_lens.instrument(model)
    handle: Any = instrumentation["blocks.0.mlp.hook_pre"].register_forward_hook(lambda *_: handle.remove())
    assert_same(logits(model), expected)
    assert trace(model) == before
    instrumentation["blocks.0.attn.hook_z"].add_hook(lambda z, hook: instrumentation.remove())
    assert_same(logits(model), expected)
    assert trace(model) == before


def test_a_cache_is_refused_while_a_model_is_exported(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    arguments = {"use_cache": False, "return_dict": False}
    with (
        instrumentation.caching([NAME]),
        pytest.raises(TracedCacheError, match="Leave the context of the cache"),
    ):
        torch.export.export(model, (make_tokens(),), arguments, strict=False)
    assert_same(logits(model), logits(model))
