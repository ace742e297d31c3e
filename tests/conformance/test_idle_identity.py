"""Until a hook acts, a hooked model computes exactly what a plain one computes, and leaves all else alone."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests import capabilities
from tests.conformance.conftest import cases
from tests.conformance.contract import flagged, unflagged
from tests.conformance.scenarios import SCENARIOS, Scenario
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, count_tensors, hooked, recorded


def _parameters(*attention: str) -> list[Any]:
    found = []
    for name, scenario in SCENARIOS.items():
        dtypes = (torch.float32,) if scenario.only_float32 else (torch.float32, torch.bfloat16)
        for parameter in cases(*attention, dtypes=dtypes, kinds=scenario.kinds):
            (case,) = parameter.values
            missing = [each for each in scenario.needs if not capabilities.takes(case.family, each, scenario.head)]
            # What a release does not have is no test of it, rather than a skipped one.
            lacks_cache = scenario.static_cache and not capabilities.supports_static_cache(case.family)
            if not missing and not lacks_cache and capabilities.model_class(case.family, scenario.head) is not None:
                found.append(pytest.param(case, scenario, id=f"{name}-{parameter.id}", marks=parameter.marks))
    return found


def build(case: Case, scenario: Scenario) -> Any:
    changes = dict(scenario.config)
    if scenario.rope:
        changes |= capabilities.rope(case.kind, scenario.rope)
    return make_model(case, scenario.head, **changes)


def wake(instrumentation: mishformer_lens.Instrumentation) -> None:
    """Make the model run its patched code with idle hook points.

    Where no hook was ever attached, or all were taken off by name, a module runs HuggingFace's own code.
    """
    for point in instrumentation.hook_points.values():
        point.register_forward_hook(lambda *_: pytest.fail("this hook was removed")).remove()


@pytest.mark.parametrize(("case", "scenario"), _parameters("eager", "sdpa"))
def test_idle(case: Case, scenario: Scenario) -> None:
    plain, model = build(case, scenario), build(case, scenario)
    wake(mishformer_lens.instrument(model))
    expected = scenario.run(plain)
    assert count_tensors(expected) > 0
    assert_same(scenario.run(model), expected)


@pytest.mark.parametrize(("case", "scenario"), _parameters("eager"))
def test_during_and_after_caching_everything(case: Case, scenario: Scenario) -> None:
    plain, model = build(case, scenario), build(case, scenario)
    points = mishformer_lens.instrument(model).hook_points
    expected = scenario.run(plain)
    with recorded(points, unflagged(case.kind)) as values:
        assert_same(scenario.run(model), expected, "during")
    assert set(values) == set(unflagged(case.kind))
    assert_same(scenario.run(model), scenario.run(plain), "after")


def test_caching_flagged_activations_too_changes_no_output(case: Case) -> None:
    plain, model = make_model(case), make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    scenario = SCENARIOS["loss, hidden states and cache"]
    for name in flagged(case.kind):
        with recorded(points, [name]) as values:
            assert_same(scenario.run(model), scenario.run(plain), name)
        assert len(values[name]) == 1


def test_backward_hooks_that_only_look_change_no_gradient(kind: str) -> None:
    case = Case(kind)
    plain, model = make_model(case), make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    run = SCENARIOS["gradients"].run
    # A gradient with respect to a scale is one of a division that HuggingFace's fused layer norm does not make.
    scales = [name for name in unflagged(kind) if name.endswith("hook_scale")]
    others = [name for name in unflagged(kind) if name not in scales]
    with recorded(points, others, "bwd") as values:
        assert_same(run(model), run(plain))
    assert set(values) == set(others)
    with recorded(points, scales, "bwd") as values:
        torch.testing.assert_close(run(model), run(plain), rtol=1e-5, atol=1e-6)
    assert set(values) == set(scales)


def test_compiles_without_a_graph_break_while_idle(float32_case: Case) -> None:
    model = make_model(float32_case)
    mishformer_lens.instrument(model)
    assert_same(
        compiled(model)(make_tokens(), use_cache=False), make_model(float32_case)(make_tokens(), use_cache=False)
    )


def compiled(model: Any) -> Any:
    """A model traced as one graph, without a single break. The graph runs as it is, without a code generator."""
    torch._dynamo.reset()
    return torch.compile(model, backend="eager", fullgraph=True)


def test_a_hook_that_is_attached_after_compilation_acts(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    faster = compiled(model)
    edits = {
        "blocks.0.attn.hook_v": lambda activation, hook: activation * 2,
        "blocks.1.hook_mlp_out": lambda activation, hook: activation * 0,
    }
    with torch.no_grad():
        idle = faster(make_tokens(), use_cache=False).logits
        with hooked(points, edits):
            expected = model(make_tokens(), use_cache=False).logits
            output = faster(make_tokens(), use_cache=False).logits
        assert not torch.equal(expected, idle)
        assert_same(output, expected)
        assert_same(faster(make_tokens(), use_cache=False).logits, idle)
