"""Mixtures of experts: who goes where, with what weight, what the experts compute, and what edits change of it."""

import copy
import functools
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning, HookShapeError, ReplacedCodeError, UnknownHookError
from tests.conformance.families.conftest import here
from tests.conformance.families.contract import contract
from tests.kinds import Kind, kinds
from tests.models import BATCH, D_MODEL, N_EXPERTS, N_LAYERS, POS, Case, make_model, make_tokens
from tests.recording import assert_close, assert_same, hooked, noise_like, recorded

# Tests that are about the warning say so.
pytestmark = pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
MIXTURES = [name for name in here() if kinds()[name].experts]
INSIDE = ("hook_gate", "hook_pre", "hook_post")

each_mixture = pytest.mark.parametrize("kind", MIXTURES)


def first_mixture(kind: str) -> str:
    """The beginning of the names of hook points in the first layer that has experts."""
    return f"blocks.{next(layer for layer in range(N_LAYERS) if kinds()[kind].is_mixture(layer))}."


def mixtures_of(model: Any) -> list[nn.Module]:
    """HuggingFace's modules that have experts, layer by layer."""
    return [module for module in model.modules() if "experts" in module._modules]


def joined(experts: Any) -> bool:
    """Whether all experts are one module."""
    return not isinstance(experts, nn.ModuleList)


def projections_of(experts: Any, number: int) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """An expert's projections: of the gate, of what it multiplies, and back."""
    if not joined(experts):
        expert = experts[number]
        names = ("w1", "w3", "w2") if "w1" in expert._modules else ("gate_proj", "up_proj", "down_proj")
        return [expert.get_submodule(name) for name in names]
    into, back = experts.gate_up_proj[number], experts.down_proj[number]
    if "gate_up_proj_bias" not in experts._parameters:
        return [functools.partial(nn.functional.linear, weight=weight) for weight in (*into.chunk(2), back)]
    # Transposed, and gate and what it multiplies in turn.
    biases = experts.gate_up_proj_bias[number], experts.down_proj_bias[number]
    return [
        functools.partial(nn.functional.linear, weight=weight.T, bias=bias)
        for weight, bias in (
            (into[:, ::2], biases[0][::2]),
            (into[:, 1::2], biases[0][1::2]),
            (back, biases[1]),
        )
    ]


def activated(form: Kind, gate: torch.Tensor, pre: torch.Tensor) -> torch.Tensor:
    """What an expert projects back."""
    if not form.clamped:
        return nn.functional.silu(gate) * pre
    gate = gate.clamp(max=7.0)
    return (pre.clamp(-7.0, 7.0) + 1) * gate * torch.sigmoid(gate * 1.702)


def weights_by(form: Kind, router: Any, given: torch.Tensor) -> torch.Tensor:
    """What ``hook_expert_weights`` is to show."""
    logits = nn.functional.linear(given, router.weight, getattr(router, "bias", None))
    if not form.weights_after_choice:
        return logits.softmax(-1)
    chosen = logits.topk(form.choices)
    return torch.zeros_like(logits).scatter(1, chosen.indices, chosen.values.softmax(-1))


def run(model: Any, points: Any, names: list[str], edits: Any = ()) -> dict[str, torch.Tensor]:
    """The activations of one pass as hooks leave them, with some edited; and the logits."""
    with torch.no_grad(), hooked(points, dict(edits)), recorded(points, names) as values:
        values["logits"].append(model(make_tokens()).logits)
    return {name: value for name, (value,) in values.items()}


def rows_of(indices: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that chose an expert, in the order of its rows, and with which choice they did."""
    choice, token = indices.T.eq(number).nonzero(as_tuple=True)
    return token, choice


def computed(mixture: Any, form: Kind, at: Any) -> torch.Tensor:
    """What a mixture gives without a shared expert, from what its experts project back, its choice and its weights."""
    indices, weights = at("mlp.hook_expert_indices"), at("mlp.hook_expert_weights")
    # After the choice, the weights of experts chosen by an edit are their own; before it, those of the others stay.
    chosen = weights.gather(1, indices) if form.weights_after_choice else weights.topk(form.choices).values
    if form.choices_add_up:
        chosen = chosen / chosen.sum(-1, keepdim=True)
    output = torch.zeros(BATCH * POS, D_MODEL)
    for number in range(N_EXPERTS):
        token, choice = rows_of(indices, number)
        back = projections_of(mixture.experts, number)[2](at(f"mlp.experts.{number}.hook_post"))
        output.index_add_(0, token, back * chosen[token, choice, None])
    return output


def shared_output(mixture: Any, form: Kind, at: Any, given: torch.Tensor) -> Any:
    """What the expert that all tokens go to gives."""
    if not form.shared_expert:
        return 0.0
    expert = mixture.get_submodule(form.shared_expert)
    into = at(f"mlp.{form.shared_expert}.hook_pre"), at(f"mlp.{form.shared_expert}.hook_pre_linear")
    assert_close(into[0], given @ expert.gate_proj.weight.T, "shared gate", **CLOSE)
    assert_close(into[1], given @ expert.up_proj.weight.T, "shared up", **CLOSE)
    post = at(f"mlp.{form.shared_expert}.hook_post")
    assert_close(post, nn.functional.silu(into[0]) * into[1], "shared post", **CLOSE)
    output = post @ expert.down_proj.weight.T
    gate = mixture._modules.get("shared_expert_gate")
    return output if gate is None else torch.sigmoid(given @ gate.weight.T) * output


@each_mixture
@torch.no_grad()
def test_values(kind: str) -> None:
    form, model = kinds()[kind], make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    names = [name for name in contract(kind) if ".mlp." in name or name.endswith(("hook_mlp_out", "hook_normalized"))]
    values = run(model, points, names)
    layers = [layer for layer in range(N_LAYERS) if form.is_mixture(layer)]
    for layer, mixture in zip(layers, mixtures_of(model), strict=True):

        def at(name: str, layer: int = layer) -> torch.Tensor:
            return values[f"blocks.{layer}.{name}"]

        (norm,) = (module for name, module in model.named_modules() if name.endswith(f"{layer}.{form.modules['ln2']}"))
        given = (at("ln2.hook_normalized") * norm.weight).flatten(0, 1)
        (router,) = (child for name, child in mixture.named_children() if name in ("gate", "router"))
        assert_close(at("mlp.hook_expert_weights"), weights_by(form, router, given), "weights", **CLOSE)
        assert torch.equal(at("mlp.hook_expert_indices"), at("mlp.hook_expert_weights").topk(form.choices).indices)
        for number in range(N_EXPERTS):
            token, _ = rows_of(at("mlp.hook_expert_indices"), number)
            gate, up, _ = projections_of(mixture.experts, number)
            found = [at(f"mlp.experts.{number}.{hook}") for hook in INSIDE]
            assert_close(found[0], gate(given[token]), "gate", **CLOSE)
            assert_close(found[1], up(given[token]), "pre", **CLOSE)
            assert_close(found[2], activated(form, *found[:2]), "post", **CLOSE)
        output = computed(mixture, form, at) + shared_output(mixture, form, at, given)
        assert_close(at("hook_mlp_out").flatten(0, 1), output, "output", **CLOSE)


@each_mixture
def test_an_edit_inside_one_expert_changes_exactly_the_tokens_that_go_to_it(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    block = first_mixture(kind)
    watched = [f"{block}mlp.hook_expert_indices", f"{block}hook_mlp_out"]
    before = run(model, points, watched)
    for number in range(N_EXPERTS):
        token, _ = rows_of(before[watched[0]], number)
        assert 0 < len(token) < BATCH * POS
        for hook in INSIDE:
            edit = {f"{block}mlp.experts.{number}.{hook}": lambda activation, hook: activation + noise_like(activation)}
            after = run(model, points, watched, edit)
            moved = (before[watched[1]] != after[watched[1]]).any(-1).flatten().nonzero().flatten()
            assert moved.tolist() == sorted(token.tolist()), (number, hook)


@each_mixture
def test_an_edit_of_one_row_changes_that_token_alone(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    block = first_mixture(kind)
    watched = [f"{block}mlp.hook_expert_indices", f"{block}hook_mlp_out"]
    before = run(model, points, watched)

    def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        changed = activation.clone()
        changed[-1] += 1.0
        return changed

    for number in range(N_EXPERTS):
        token, _ = rows_of(before[watched[0]], number)
        after = run(model, points, watched, {f"{block}mlp.experts.{number}.hook_post": edit})
        moved = (before[watched[1]] != after[watched[1]]).any(-1).flatten().nonzero().flatten()
        assert moved.tolist() == [int(token[-1])]


@pytest.mark.parametrize("kind", [kind for kind in MIXTURES if not kinds()[kind].weights_after_choice])
def test_an_edit_of_the_weights_sends_tokens_elsewhere(kind: str) -> None:
    form, model = kinds()[kind], make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    block = first_mixture(kind)
    names = [name for name in contract(kind) if name.startswith(f"{block}mlp.")] + [f"{block}hook_mlp_out"]

    def prefer_the_last(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.linspace(0.1, 0.4, N_EXPERTS).expand_as(activation).clone()

    values = run(model, points, names, {f"{block}mlp.hook_expert_weights": prefer_the_last})
    indices = values[f"{block}mlp.hook_expert_indices"]
    expected = torch.arange(N_EXPERTS - 1, N_EXPERTS - 1 - form.choices, -1)
    assert torch.equal(indices, expected.expand_as(indices))
    for number in range(N_EXPERTS):
        rows = BATCH * POS if number in expected else 0
        assert {len(values[f"{block}mlp.experts.{number}.{hook}"]) for hook in INSIDE} == {rows}
    if not form.shared_expert:
        output = computed(mixtures_of(model)[0], form, lambda name: values[block + name])
        assert_close(values[f"{block}hook_mlp_out"].flatten(0, 1), output, "output", **CLOSE)


@pytest.mark.parametrize("kind", [kind for kind in MIXTURES if kinds()[kind].weights_after_choice])
def test_an_edit_of_weights_after_the_choice_weighs_and_sends_nobody_elsewhere(kind: str) -> None:
    form, model = kinds()[kind], make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    block = first_mixture(kind)
    names = [name for name in contract(kind) if name.startswith(f"{block}mlp.")] + [f"{block}hook_mlp_out"]
    before = run(model, points, names)
    values = run(model, points, names, {f"{block}mlp.hook_expert_weights": lambda weights, hook: weights + 0.5})
    indices = f"{block}mlp.hook_expert_indices"
    assert torch.equal(values[indices], before[indices])
    assert bool(((before[f"{block}mlp.hook_expert_weights"] > 0).sum(-1) == form.choices).all())
    output = computed(mixtures_of(model)[0], form, lambda name: values[block + name])
    assert_close(values[f"{block}hook_mlp_out"].flatten(0, 1), output, "output", **CLOSE)


@each_mixture
def test_weights_are_scaled_after_the_choice_where_they_add_up(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    name = f"{first_mixture(kind)}mlp.hook_expert_weights"
    before = run(model, points, [])["logits"]
    after = run(model, points, [], {name: lambda activation, hook: activation * 3})["logits"]
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-4) == kinds()[kind].choices_add_up


@each_mixture
def test_an_edit_of_the_indices_sends_tokens_elsewhere_with_the_weights_they_had(kind: str) -> None:
    form, model = kinds()[kind], make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    block = first_mixture(kind)
    names = [name for name in contract(kind) if name.startswith(f"{block}mlp.")] + [f"{block}hook_mlp_out"]
    before = run(model, points, names)

    def next_one(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return (activation + 1) % N_EXPERTS

    after = run(model, points, names, {f"{block}mlp.hook_expert_indices": next_one})
    assert torch.equal(after[f"{block}mlp.hook_expert_weights"], before[f"{block}mlp.hook_expert_weights"])
    for number in range(N_EXPERTS):
        rows = len(before[f"{block}mlp.experts.{number}.hook_post"])
        assert len(after[f"{block}mlp.experts.{(number + 1) % N_EXPERTS}.hook_post"]) == rows
    mixture = mixtures_of(model)[0]
    # What a shared expert adds is the same.
    difference = computed(mixture, form, lambda name: after[block + name]) - computed(
        mixture, form, lambda name: before[block + name]
    )
    moved = after[f"{block}hook_mlp_out"] - before[f"{block}hook_mlp_out"]
    assert_close(moved.flatten(0, 1), difference, "output", **CLOSE)


@each_mixture
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda indices: indices + N_EXPERTS, "numbers from"),
        (lambda indices: indices - N_EXPERTS, "numbers from"),
        (lambda indices: indices.float(), "float32"),
        (lambda indices: indices[:-1], "returned a tensor of shape"),
    ],
    ids=["too large", "negative", "no whole numbers", "too few"],
)
@pytest.mark.parametrize("experts", ["eager", None], ids=["eager", "as the release chooses"])
def test_experts_that_do_not_exist_cannot_be_chosen(kind: str, wrong: Any, said: str, experts: str | None) -> None:
    model = make_model(Case(kind), experts_implementation=experts)
    points = mishformer_lens.instrument(model).hook_points
    expected = model(make_tokens()).logits
    edit = {f"{first_mixture(kind)}mlp.hook_expert_indices": lambda activation, hook: wrong(activation)}
    with hooked(points, edit), pytest.raises(HookShapeError, match=said):
        model(make_tokens())
    assert_same(model(make_tokens()).logits, expected)


@each_mixture
def test_a_hook_point_of_an_expert_that_does_not_exist_is_refused(kind: str) -> None:
    instrumentation = mishformer_lens.instrument(make_model(Case(kind)))
    block = first_mixture(kind)
    for name in (f"{block}mlp.experts.{N_EXPERTS}.hook_gate", f"{block}mlp.experts.-1.hook_gate"):
        with pytest.raises(UnknownHookError, match="has no hook point"):
            instrumentation[name]
    for layer in range(N_LAYERS):
        mixture = kinds()[kind].is_mixture(layer)
        absent = ("hook_pre", "hook_post") if mixture else ("experts.0.hook_gate", "hook_expert_weights")
        for name in absent:
            with pytest.raises(UnknownHookError, match="has no hook point"):
                instrumentation[f"blocks.{layer}.mlp.{name}"]


@each_mixture
def test_experts_without_tokens_fire_without_rows_and_have_the_gradients_that_they_have(kind: str) -> None:
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    inside = [name for name in contract(kind) if ".experts." in name]
    gradients = []
    for each, names in ((plain, []), (model, inside)):
        with recorded(points, names) as values:
            each(make_tokens()[:1, :1]).logits.sum().backward()
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
    assert list(values) == inside
    rows = [len(value) for value, *more in values.values() if not more]
    assert len(rows) == len(inside)
    assert set(rows) == {0, 1}
    assert_same(gradients[1], gradients[0])


def implementations(model: Any) -> Iterator[str]:
    """The implementations that the release has for joined experts, but the eager one."""
    for name in ("grouped_mm", "batched_mm"):
        if joined(mixtures_of(model)[0].experts) and "config" in vars(mixtures_of(model)[0].experts):
            yield name


@each_mixture
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_looking_into_experts_leaves_a_kernel_with_one_warning(kind: str, dtype: torch.dtype) -> None:
    case = Case(kind, dtype=dtype)
    eager = make_model(case)
    expected = eager(make_tokens()).logits
    block = first_mixture(kind)
    for name in implementations(eager):
        model = make_model(case, experts_implementation=name)
        instrumentation = mishformer_lens.instrument(model)
        fused = model(make_tokens()).logits
        with instrumentation.caching([f"{block}mlp.hook_expert_weights", f"{block}mlp.hook_expert_indices"]):
            assert_same(model(make_tokens()).logits, fused)
        with (
            instrumentation.caching([f"{block}mlp.experts.{N_EXPERTS - 1}.hook_post"]),
            pytest.warns(EagerFallbackWarning, match=f"experts_implementation '{name}'") as warned,
        ):
            model(make_tokens())
        assert len(warned) == 1
        with instrumentation.caching([each for each in contract(kind) if ".experts.0." in each]):
            # Every layer is eager now.
            assert_same(model(make_tokens()).logits, expected)
        assert_same(model(make_tokens()).logits, fused)
    with mishformer_lens.instrument(eager).caching([f"{block}mlp.experts.0.hook_post"]):
        if kinds()[kind].experts_together:
            with pytest.warns(EagerFallbackWarning, match="this release of transformers") as warned:
                eager(make_tokens())
            assert len(warned) == 1
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert_same(eager(make_tokens()).logits, expected)
    assert_same(eager(make_tokens()).logits, expected)


@each_mixture
def test_edits_act_the_same_whatever_computes_the_experts(kind: str) -> None:
    eager = make_model(Case(kind))
    for name in implementations(eager):
        model = make_model(Case(kind), experts_implementation=name)
        found, expected = (mishformer_lens.instrument(each).hook_points for each in (model, eager))
        for edited in (each for each in contract(kind) if ".mlp." in each):
            edit = {edited: lambda activation, hook: activation + noise_like(activation)}
            assert_close(
                run(model, found, [], edit)["logits"], run(eager, expected, [], edit)["logits"], edited, **CLOSE
            )


@each_mixture
def test_experts_whose_code_was_replaced_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    block = first_mixture(kind)
    experts: Any = mixtures_of(model)[0].experts
    cls: Any = type(experts) if joined(experts) else type(experts[0])
    own = cls.forward

    def replacement(self: Any, *arguments: Any, **named: Any) -> Any:
        return own(self, *arguments, **named)

    monkeypatch.setattr(cls, "forward", replacement)
    with pytest.raises(ReplacedCodeError, match=r"forward of .* was replaced by .*replacement"):
        instrumentation[f"{block}mlp.experts.0.hook_gate"].add_hook(lambda activation, hook: None)
    monkeypatch.undo()
    with instrumentation.caching([f"{block}mlp.experts.0.hook_gate"]) as cache:
        model(make_tokens())
    assert len(cache) == 1


@each_mixture
def test_hooks_in_what_a_mixture_calls_are_refused_where_the_mixture_was_replaced(kind: str) -> None:
    model = make_model(Case(kind))
    expected = model(make_tokens()).logits
    instrumentation = mishformer_lens.instrument(model)
    block = first_mixture(kind)
    mixture: Any = mixtures_of(model)[0]
    own = type(mixture).forward

    def replacement(self: Any, hidden_states: torch.Tensor) -> Any:
        return own(self, hidden_states)

    mixture.forward = types.MethodType(replacement, mixture)
    for name in (each for each in contract(kind) if each.startswith(f"{block}mlp.")):
        with pytest.raises(ReplacedCodeError, match=r"was replaced, on this one module, by .*replacement"):
            instrumentation[name].add_hook(lambda activation, hook: None)
    assert_same(model(make_tokens()).logits, expected)
    del mixture.forward
    with instrumentation.caching([f"{block}mlp.hook_expert_weights"]) as cache:
        assert_same(model(make_tokens()).logits, expected)
    assert len(cache) == 1


@each_mixture
def test_a_copy_has_the_hooks_inside_experts(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    expected = model(make_tokens()).logits
    inside = {f"{first_mixture(kind)}mlp.experts.2.hook_post": lambda activation, hook: activation * 0}
    with hooked(instrumentation.hook_points, inside):
        edited = model(make_tokens()).logits
        duplicate = copy.deepcopy(model)
    assert not torch.equal(edited, expected)
    assert_same(duplicate(make_tokens()).logits, edited)
    assert_same(model(make_tokens()).logits, expected)
