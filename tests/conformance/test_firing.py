"""Every hook point fires once, in order, with its shape; replacing an activation by itself changes nothing."""

from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning, HookShapeError
from tests.conformance.contract import contract, flagged, is_split_input, shape, unflagged
from tests.models import BATCH, POS, Case, make_model, make_tokens
from tests.recording import assert_same, hooked, recorded


def test_hook_points_are_those_of_the_contract_in_its_order(kind: str) -> None:
    instrumentation = mishformer_lens.instrument(make_model(Case(kind)))
    assert list(instrumentation.hook_points) == list(contract(kind))
    assert all(point.name == name for name, point in instrumentation.hook_points.items())


def test_every_hook_point_fires_once_in_order_with_its_shape(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    fired: list[tuple[str, tuple[int, ...]]] = []

    def note(activation: torch.Tensor, hook: Any) -> None:
        fired.append((hook.name, tuple(activation.shape)))

    with hooked(points, dict.fromkeys(unflagged(case.kind), note)):
        model(make_tokens())
    assert fired == [(name, shape(case.kind, name)) for name in unflagged(case.kind)]


def test_a_flagged_hook_point_fires_among_the_others_without_a_flag(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    for name in flagged(case.kind):
        with recorded(points, [*unflagged(case.kind), name]) as values:
            model(make_tokens())
        block = name.rpartition("hook_")[0].removesuffix("attn.")
        if name.endswith(("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")):
            # The layer norm works on every head's copy; on three of them where query, key and value are split.
            for norm in ("ln1.hook_scale", "ln1.hook_normalized"):
                seen = [tuple(value.shape) for value in values.pop(block + norm)]
                plain = shape(case.kind, block + norm)
                assert seen == [(*plain[:2], 4, plain[2])] * (3 if is_split_input(name) else 1)
        assert [tuple(value.shape) for value in values[name]] == [shape(case.kind, name)]
        assert all(len(each) == 1 for each in values.values())
        order = list(contract(case.kind))
        assert list(values) == sorted(values, key=order.index)


def test_activations_have_the_dtype_of_the_model(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    with recorded(points, unflagged(case.kind)) as values:
        model(make_tokens())
    # TransformerLens computes the scale in float32 at least.
    other = {name for name, (value,) in values.items() if value.dtype != case.dtype}
    assert all(name.endswith("hook_scale") for name in other)
    assert all(values[name][0].dtype == torch.float32 for name in other)


def test_replacing_an_activation_by_itself_changes_nothing(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    tokens = make_tokens()
    fused = model(tokens, labels=tokens, output_hidden_states=True)
    for name in contract(case.kind):
        expected = fused
        if name.endswith(("hook_attn_scores", "hook_pattern")) and case.attention != "eager":
            # The layer is eager while anybody listens; to be compared with that.
            with recorded(points, [name]):
                expected = model(tokens, labels=tokens, output_hidden_states=True)
        with hooked(points, {name: lambda activation, hook: activation.clone()}):
            output = model(tokens, labels=tokens, output_hidden_states=True)
        assert_same(output, expected, name)


def test_replacing_every_activation_by_itself_changes_nothing(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    names = list(contract(case.kind))
    with recorded(points, names):
        expected = model(make_tokens())
    with hooked(points, dict.fromkeys(names, lambda activation, hook: activation.clone())):
        output = model(make_tokens())
    assert_same(output, expected)


@pytest.mark.parametrize("bad", [lambda x: x[:, :-1], lambda x: x[..., None], lambda x: 0.0, lambda x: (x,)])
def test_a_hook_that_returns_another_shape_is_refused(kind: str, bad: Any) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    expected = model(make_tokens())
    for name in contract(kind):
        with (
            hooked(points, {name: lambda activation, hook: bad(activation)}),
            pytest.raises(HookShapeError, match=f"(?s){name} returned .*Return a tensor of shape") as caught,
        ):
            model(make_tokens())
        assert str(list(shape(kind, name)[:2])).removesuffix("]") in str(caught.value)
    assert_same(model(make_tokens()), expected)


def test_a_hook_that_changes_the_dtype_is_not_silently_converted(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    # The next operation gets float64 activations with float32 weights, which torch itself refuses.
    with (
        hooked(points, {"blocks.0.hook_resid_pre": lambda activation, hook: activation.double()}),
        pytest.raises(RuntimeError, match=r"(?i)dtype|type"),
    ):
        model(make_tokens())


def test_a_hook_may_edit_in_place(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points

    def in_place(activation: torch.Tensor, hook: Any) -> None:
        activation.mul_(0.5)

    def out_of_place(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return activation * 0.5

    with torch.no_grad():
        for name in contract(case.kind):
            with hooked(points, {name: out_of_place}):
                expected = model(make_tokens())
            with hooked(points, {name: in_place}):
                output = model(make_tokens())
            assert_same(output, expected, name)


def test_sdpa_falls_back_to_eager_with_a_warning_in_the_hooked_layer_only(kind: str) -> None:
    model = make_model(Case(kind, "sdpa"))
    instrumentation = mishformer_lens.instrument(model)
    patterns: list[tuple[int, ...]] = []

    def note(activation: torch.Tensor, hook: Any) -> None:
        patterns.append(tuple(activation.shape))

    instrumentation["blocks.1.attn.hook_pattern"].add_hook(note)
    with pytest.warns(EagerFallbackWarning, match="computes attention eagerly") as caught:
        model(make_tokens())
    assert len(caught) == 1
    assert patterns == [(BATCH, 4, POS, POS)]
    instrumentation["blocks.1.attn.hook_pattern"].remove_hooks()
    model(make_tokens())  # no warning: warnings are errors here
