"""Putting hook points on a live model, and taking them off again."""

import inspect
import sys
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import mishformer_lens
from mishformer_lens.errors import NotInstrumentedError, UnknownHookError, UnsupportedModelError
from tests.instrument.live import logits, trace, zero
from tests.models import HEADS, KINDS, Case, make_config, make_model, make_tokens
from tests.recording import assert_same, hooked


def test_says_what_it_put_on(kind: str, model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    assert instrumentation.active
    assert instrumentation.model is model.base_model
    assert instrumentation.family.name == Case(kind).family
    assert instrumentation.variant is mishformer_lens.variants[Case(kind).family]
    assert instrumentation.features == instrumentation.variant.attention
    assert not set(instrumentation.features) & set(instrumentation.unsupported)
    assert all(isinstance(point, mishformer_lens.HookPoint) for point in instrumentation.hook_points.values())
    assert f"{len(instrumentation.hook_points)} hook points" in repr(instrumentation)
    instrumentation.remove()
    assert "removed" in repr(instrumentation)


def test_an_instrumented_model_is_untouched(model: Any) -> None:
    before = trace(model)
    mishformer_lens.instrument(model)
    assert trace(model) == before


def test_a_part_is_lent_its_patched_class_while_somebody_listens(kind: str, model: Any) -> None:
    before, parts = trace(model), PARTS[Case(kind).family]
    point = mishformer_lens.instrument(model)["blocks.1.mlp.hook_post"]
    base = model.base_model
    lent = [base, base.get_submodule(parts["block"]), base.get_submodule(parts["mlp"])]
    first = point.register_forward_hook(lambda module, inputs, output: None)
    with mishformer_lens.instrument(model).caching(["blocks.1.mlp.hook_post"]):
        first.remove()
        for module, cls in zip(model.modules(), before["classes"], strict=True):
            assert (type(module) is cls) == (module not in lent)
            assert isinstance(module, cls)
            assert (type(module).__name__, type(module).__module__) == (cls.__name__, cls.__module__)
        during = trace(model)
        for unchanged in ("state dict", "pointers", "modules", "repr"):
            assert during[unchanged] == before[unchanged]
    assert trace(model) == before


def test_remove_leaves_no_trace(model: Any) -> None:
    before, expected = trace(model), logits(model)
    instrumentation = mishformer_lens.instrument(model)
    with hooked(instrumentation.hook_points, {"blocks.0.hook_mlp_out": zero}):
        assert not torch.equal(logits(model), expected)
    instrumentation.remove()
    assert trace(model) == before
    assert not instrumentation.active
    assert_same(logits(model), expected)


def test_remove_takes_hooks_off_with_their_hook_points(model: Any) -> None:
    expected = logits(model)
    instrumentation = mishformer_lens.instrument(model)
    instrumentation["blocks.0.hook_mlp_out"].add_hook(zero)
    instrumentation.remove()
    assert_same(logits(model), expected)
    mishformer_lens.instrument(model)
    assert_same(logits(model), expected)


def test_removing_twice_is_refused(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    instrumentation.remove()
    with pytest.raises(NotInstrumentedError, match="removed already"):
        instrumentation.remove()


def test_removing_an_old_instrumentation_leaves_the_new_one(model: Any) -> None:
    old = mishformer_lens.instrument(model)
    old.remove()
    new = mishformer_lens.instrument(model)
    with pytest.raises(NotInstrumentedError):
        old.remove()
    assert new.active


def test_is_a_context_manager(model: Any) -> None:
    before = trace(model)
    with mishformer_lens.instrument(model) as instrumentation:
        assert instrumentation.active
    assert trace(model) == before
    with pytest.raises(ZeroDivisionError), mishformer_lens.instrument(model):
        raise ZeroDivisionError
    assert trace(model) == before


def test_a_nested_context_leaves_the_hook_points_to_the_outer_one(model: Any) -> None:
    with mishformer_lens.instrument(model) as outer:
        with mishformer_lens.instrument(model) as inner:
            assert inner is outer
        assert outer.active
    assert not outer.active


def test_a_context_may_be_left_after_remove(model: Any) -> None:
    with mishformer_lens.instrument(model) as instrumentation:
        instrumentation.remove()
    assert not instrumentation.active


def test_instrumenting_twice_changes_nothing(model: Any) -> None:
    first = mishformer_lens.instrument(model)
    during = trace(model)
    assert mishformer_lens.instrument(model) is first
    assert mishformer_lens.instrument(model.base_model) is first
    assert trace(model) == during


def test_two_models_do_not_affect_each_other(kind: str) -> None:
    one, other, plain = (make_model(Case(kind)) for _ in range(3))
    expected = logits(plain)
    points = mishformer_lens.instrument(one).hook_points
    other_points = mishformer_lens.instrument(other).hook_points
    with hooked(points, {"blocks.0.hook_mlp_out": zero}):
        edited = logits(one)
        assert not torch.equal(edited, expected)
        assert_same(logits(other), expected)
        assert_same(logits(plain), expected)
        with hooked(other_points, {"blocks.1.hook_mlp_out": zero}):
            assert not torch.equal(logits(other), expected)
            assert_same(logits(one), edited)
    assert_same(logits(one), expected)


def test_models_of_both_families_and_both_block_forms_live_side_by_side() -> None:
    models = {kind: make_model(Case(kind)) for kind in KINDS}
    expected = {kind: logits(each) for kind, each in models.items()}
    instrumentations = [mishformer_lens.instrument(each) for each in models.values()]
    assert {kind: logits(each).sum().item() for kind, each in models.items()} == {
        kind: value.sum().item() for kind, value in expected.items()
    }
    assert len({id(each) for each in instrumentations}) == len(KINDS)


def test_a_model_made_afterwards_is_a_plain_one(kind: str, model: Any) -> None:
    before = trace(make_model(Case(kind)))
    mishformer_lens.instrument(model)
    after = trace(make_model(Case(kind)))
    for key in ("classes", "attributes", "state dict", "modules", "repr"):
        assert after[key] == before[key]


def patched_code_run_by(model: Any) -> set[str]:
    """The names of the patched functions that a forward pass runs."""
    names = set()

    def profile(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and " patched by mishformer_lens " in frame.f_code.co_filename:
            names.add(frame.f_code.co_qualname)

    sys.setprofile(profile)
    try:
        logits(model)
    finally:
        sys.setprofile(None)
    return names


def test_only_modules_around_hook_points_with_hooks_run_patched_code(model: Any) -> None:
    points = mishformer_lens.instrument(model).hook_points
    assert patched_code_run_by(model) == set()
    parts = PARTS[model.config.model_type]
    outer = [model.base_model, model.base_model.get_submodule(parts["block"])]
    names = [type(module).__name__ for module in (*outer, model.base_model.get_submodule(parts["mlp"]))]
    points["blocks.1.mlp.hook_post"].add_hook(zero)
    assert patched_code_run_by(model) == {f"{name}.forward" for name in names}
    points["blocks.1.mlp.hook_post"].remove_hooks()
    assert patched_code_run_by(model) == set()


def test_the_source_of_a_hooked_method_is_the_patched_one(model: Any) -> None:
    mlp: Any = model.base_model.get_submodule(PARTS[model.config.model_type]["mlp"])
    instrumentation = mishformer_lens.instrument(model)
    assert "hook_post" not in inspect.getsource(mlp.forward)
    with instrumentation.caching(["blocks.1.mlp.hook_pre"]):
        assert "self.hook_post(" in inspect.getsource(mlp.forward)
    assert "hook_post" not in inspect.getsource(mlp.forward)


@pytest.mark.parametrize("head", ["base", "sequence classification", "causal"])
def test_any_head_is_hooked(kind: str, head: str) -> None:
    model = make_model(Case(kind), head)
    instrumentation = mishformer_lens.instrument(model)
    assert instrumentation.model is model.base_model
    seen: list[str] = []
    with (
        torch.no_grad(),
        hooked(instrumentation.hook_points, {"ln_final.hook_normalized": lambda x, hook: seen.append(hook.name)}),
    ):
        model(make_tokens())
    assert seen == ["ln_final.hook_normalized"]


def test_a_model_inside_other_modules_is_found(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(nn.Sequential(nn.Identity(), nn.ModuleDict({"inside": model})))
    assert instrumentation.model is model.base_model


def test_a_subclass_of_a_user_is_hooked(kind: str) -> None:
    original = getattr(transformers, HEADS[Case(kind).family]["base"])
    user_class: Any = type("MyModel", (original,), {"__module__": __name__, "answer": lambda self: 42})
    model: Any = user_class(make_config(kind)).eval()
    before = trace(model)
    expected = model(make_tokens().cpu()).last_hidden_state
    instrumentation = mishformer_lens.instrument(model)
    assert isinstance(model, user_class)
    assert model.answer() == 42
    assert type(model).__name__ == "MyModel"
    assert_same(model(make_tokens().cpu()).last_hidden_state, expected)
    with hooked(instrumentation.hook_points, {"blocks.0.hook_mlp_out": zero}):
        assert not torch.equal(model(make_tokens().cpu()).last_hidden_state, expected)
    instrumentation.remove()
    assert trace(model) == before


def test_a_model_of_another_family_is_refused_and_left_alone() -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    bert = transformers.BertModel(config)
    before = trace(bert)
    with pytest.raises(UnsupportedModelError, match=r"BertModel is of no family .*gpt2 \(GPT2Model\), .*CONTRIBUTING"):
        mishformer_lens.instrument(bert)
    assert trace(bert) == before


def test_something_that_is_no_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Linear is of no family"):
        mishformer_lens.instrument(nn.Linear(2, 2))


def test_two_base_models_at_once_are_refused() -> None:
    both = nn.ModuleList([make_model(Case("gpt2")), make_model(Case("gpt_neox"))])
    before = trace(both)
    with pytest.raises(UnsupportedModelError, match="contains 2 base models"):
        mishformer_lens.instrument(both)
    assert trace(both) == before


class Wrapper(nn.Module):
    """What a quantizer, an adapter or a user may put in the place of a part."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


PARTS = {
    "gpt2": {"block": "h.1", "attention": "h.1.attn", "mlp": "h.1.mlp", "layer norm": "h.1.ln_1", "final norm": "ln_f"},
    "gpt_neox": {
        "block": "layers.1",
        "attention": "layers.1.attention",
        "mlp": "layers.1.mlp",
        "layer norm": "layers.1.input_layernorm",
        "final norm": "final_layer_norm",
    },
}


@pytest.mark.parametrize("part", ["block", "attention", "mlp", "layer norm", "final norm"])
def test_a_model_with_a_replaced_part_is_refused_and_left_alone(kind: str, model: Any, part: str) -> None:
    place = PARTS[Case(kind).family][part]
    parent, _, name = place.rpartition(".")
    owner = model.base_model.get_submodule(parent)
    setattr(owner, name, Wrapper(getattr(owner, name)))
    before = trace(model)
    with pytest.raises(UnsupportedModelError, match=r"Wrapper|stands where"):
        mishformer_lens.instrument(model)
    assert trace(model) == before


def test_a_missing_name_is_refused_with_a_suggestion(model: Any) -> None:
    instrumentation = mishformer_lens.instrument(model)
    with pytest.raises(UnknownHookError, match=r"no hook point 'blocks.0.atn.hook_z'.*blocks\.0\.attn\.hook_z"):
        instrumentation["blocks.0.atn.hook_z"]


def test_a_hook_removed_by_torch_s_own_handle_is_gone(model: Any) -> None:
    expected = logits(model)
    point = mishformer_lens.instrument(model)["blocks.0.hook_mlp_out"]
    handle = point.register_forward_hook(lambda module, inputs, output: output * 0)
    assert point.is_active()
    assert not torch.equal(logits(model), expected)
    handle.remove()
    assert not point.is_active()
    assert_same(logits(model), expected)


def test_no_weight_is_copied(model: Any) -> None:
    before = [parameter.data_ptr() for parameter in model.parameters()]
    buffers = [buffer.data_ptr() for buffer in model.buffers()]
    instrumentation = mishformer_lens.instrument(model)
    assert [parameter.data_ptr() for parameter in model.parameters()] == before
    assert [buffer.data_ptr() for buffer in model.buffers()] == buffers
    assert not any(list(point.parameters()) or list(point.buffers()) for point in instrumentation.hook_points.values())
