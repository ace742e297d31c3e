"""Observers draw no random number and run no module again; what they see of heads adds up, whatever projects them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import mishformer_lens
from mishformer_lens.errors import HeadResultsError
from tests import capabilities
from tests.conformance.contract import contract, flagged
from tests.models import BATCH, D_HEAD, D_MODEL, DEVICE, N_HEADS, POS, Case, make_model, make_tokens
from tests.recording import assert_close, assert_same, hooked

# All hook points are looked at here, also those for which a layer leaves its fused kernel.
pytestmark = pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")

RESULT = "blocks.0.attn.hook_result"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def first_block(model: Any) -> Any:
    return (model.transformer.h if hasattr(model, "transformer") else model.gpt_neox.layers)[0]


def parts(model: Any) -> dict[str, Any]:
    """Modules of the first block that hook points are about, by what they do."""
    block = first_block(model)
    if hasattr(block, "ln_1"):
        return {"norm": block.ln_1, "in": block.attn.c_attn, "out": block.attn.c_proj, "second norm": block.ln_2}
    attention = block.attention
    return {
        "norm": block.input_layernorm,
        "in": attention.query_key_value,
        "out": attention.dense,
        "second norm": block.post_attention_layernorm,
    }


def put_out(model: Any, projection: nn.Module) -> None:
    """Put a module in the place of the first block's output projection."""
    block = first_block(model)
    if hasattr(block, "ln_1"):
        block.attn.c_proj = projection
    else:
        block.attention.dense = projection


class Adapter(nn.Module):
    """A low-rank update beside a module, with dropout, as adapters have it."""

    def __init__(self, base: nn.Module, dropout: float = 0.5) -> None:
        super().__init__()
        self.base = base
        self.dropout = nn.Dropout(dropout)
        self.down, self.up = nn.Linear(D_MODEL, 4, bias=False), nn.Linear(4, D_MODEL, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base(x) + 2.0 * self.up(self.down(self.dropout(x)))
        return output


class Bottleneck(nn.Module):
    """An adapter that is not linear."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.nn.functional.gelu(self.base(x))
        return output


class Frozen(nn.Module):
    """A projection whose computation leaves no derivative, as kernels for packed weights may."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output: torch.Tensor = self.base(x)
            return output


class Whole(torch.Tensor):
    """A weight that a product can be made with, and no view of: torchao's are of that kind."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            plain = [each.as_subclass(torch.Tensor) if isinstance(each, cls) else each for each in args]
            return func(*plain, **(kwargs or {}))
        transposed: Any = torch.Tensor.T
        if func in (transposed.__get__, torch.Tensor.t, torch.Tensor.permute, torch.Tensor.transpose):
            raise NotImplementedError(f"{func} is not implemented")
        return super().__torch_function__(func, types, args, kwargs or {})


def adapted(kind: str, wrapper: Any = Adapter, attention: str = "eager") -> Any:
    model = make_model(Case(kind, attention))
    torch.manual_seed(0)
    put_out(model, wrapper(parts(model)["out"]).to(DEVICE))
    return model.eval()


@contextlib.contextmanager
def calls(model: Any) -> Iterator[dict[str, list[tuple[int, ...]]]]:
    """The shapes of what goes into the parts, call by call, as torch's own forward hooks see it."""
    seen: dict[str, list[tuple[int, ...]]] = {name: [] for name in parts(model)}

    def note(name: str) -> Any:
        return lambda module, arguments, output: seen[name].append(tuple(arguments[0].shape))

    handles = [part.register_forward_hook(note(name)) for name, part in parts(model).items()]
    yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("train", [False, True])
def test_a_users_hook_sees_one_call_of_the_usual_shape(float32_case: Case, train: bool) -> None:
    model = make_model(float32_case).train(train)
    instrumentation = mishformer_lens.instrument(model)
    expected = model(make_tokens()).logits
    with calls(model) as seen, instrumentation.caching(contract(float32_case.kind)) as cache:
        output = model(make_tokens()).logits
    assert seen == {name: [(BATCH, POS, D_MODEL)] for name in parts(model)}
    assert set(cache) == set(contract(float32_case.kind))
    if float32_case.attention == "eager":
        assert_same(output, expected)


def test_a_layer_norm_fires_once_while_a_split_input_is_looked_at(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    for name in flagged(kind):
        fired: list[str] = []

        def note(activation: torch.Tensor, hook: Any, fired: Any = fired) -> None:
            fired.append(hook.name)

        norms = ["blocks.0.ln1.hook_scale", "blocks.0.ln1.hook_normalized"]
        with instrumentation.observing(dict.fromkeys([name, *norms], note)):
            model(make_tokens())
        assert sorted(fired) == sorted([name, *norms])


def test_an_edit_of_a_split_input_works_by_heads(kind: str) -> None:
    """The other way round: where a hook may edit, each head has an input of its own."""
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    with calls(model) as seen, hooked(points, {"blocks.0.hook_attn_in": lambda activation, hook: activation * 1.0}):
        model(make_tokens())
    assert seen["norm"] == seen["in"] == [(BATCH, POS, N_HEADS, D_MODEL)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_no_random_number_is_drawn_by_looking(kind: str, attention: str) -> None:
    model = adapted(kind, attention=attention).train()
    instrumentation = mishformer_lens.instrument(model)

    def run(names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        with instrumentation.caching(names):
            logits = model(make_tokens()).logits
        return logits.detach(), torch.rand(1)

    expected = run([])
    for name in contract(kind):
        if attention == "eager" or not name.endswith(("hook_attn_scores", "hook_pattern")):
            assert_same(run([name]), expected, name)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_results_of_an_adapter_add_up_to_its_output(kind: str, train: bool, gradients: bool) -> None:
    model = adapted(kind).train(train)
    instrumentation = mishformer_lens.instrument(model)
    outputs: list[torch.Tensor] = []
    adapter = parts(model)["out"]
    adapter.register_forward_hook(lambda module, arguments, output: outputs.append(output.detach()))
    with torch.set_grad_enabled(gradients), instrumentation.caching([RESULT]) as cache:
        model(make_tokens())
    (output,) = outputs
    assert cache[RESULT].shape == (BATCH, POS, N_HEADS, D_MODEL)
    assert_close(cache[RESULT].sum(-2) + adapter.base.bias, output, RESULT, **CLOSE)
    # One head's part alone, from what its definition is.
    if not train:
        z = instrumentation["blocks.0.attn.hook_z"]
        with torch.no_grad(), instrumentation.observing({z.name: lambda activation, hook: outputs.append(activation)}):
            model(make_tokens())
        alone = torch.zeros(BATCH, POS, N_HEADS, D_HEAD, device=DEVICE)
        alone[:, :, 1] = outputs[1][:, :, 1]
        expected = adapter(alone.flatten(-2)) - adapter(torch.zeros_like(alone.flatten(-2)))
        assert_close(cache[RESULT][:, :, 1], expected.detach(), "one head", **CLOSE)


def test_an_edit_under_dropout_keeps_the_mask_that_was_drawn(kind: str) -> None:
    model = adapted(kind).train()
    points = mishformer_lens.instrument(model).hook_points
    out = "blocks.0.hook_attn_out"
    found: dict[str, torch.Tensor] = {}

    def run(edit: Any) -> torch.Tensor:
        torch.manual_seed(3)
        with hooked(points, {RESULT: edit, out: lambda activation, hook: found.update(out=activation.detach())}):
            model(make_tokens())
        return found["out"]

    results: list[torch.Tensor] = []
    plain = run(lambda activation, hook: results.append(activation.detach()))
    without = run(lambda activation, hook: torch.zeros_like(activation))
    assert_close(without, parts(model)["out"].base.bias.detach().expand_as(without), "no head", **CLOSE)
    doubled = run(lambda activation, hook: activation * 2)
    assert_close(doubled, plain + results[0].sum(-2), "all heads twice", **CLOSE)


def test_gradients_flow_through_the_results_of_an_adapter(kind: str) -> None:
    model = adapted(kind)
    instrumentation = mishformer_lens.instrument(model)
    adapter = parts(model)["out"]
    kept: list[torch.Tensor] = []
    with instrumentation.observing({RESULT: lambda activation, hook: kept.append(activation)}):
        model(make_tokens())
    kept[0].sum().backward()
    found = adapter.up.weight.grad.clone()
    adapter.zero_grad()
    outputs: list[torch.Tensor] = []
    adapter.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    model(make_tokens())
    outputs[0].sum().backward()
    assert_close(found, adapter.up.weight.grad, "up", rtol=1e-4, atol=1e-5)


def test_a_model_is_trained_while_it_is_looked_at(kind: str) -> None:
    gradients = []
    for names in ([], [RESULT]):
        model = adapted(kind).train()
        instrumentation = mishformer_lens.instrument(model)
        torch.manual_seed(3)
        with instrumentation.caching(names):
            model(make_tokens(), labels=make_tokens()).loss.backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    assert_same(gradients[1], gradients[0])


@pytest.mark.parametrize(
    ("wrapper", "reason"), [(Bottleneck, "is not linear"), (Frozen, "has no derivative")], ids=["bent", "no derivative"]
)
@pytest.mark.parametrize("gradients", [False, True])
def test_what_is_no_sum_of_heads_is_refused(kind: str, wrapper: Any, reason: str, gradients: bool) -> None:
    model = adapted(kind, wrapper)
    instrumentation = mishformer_lens.instrument(model)
    with torch.set_grad_enabled(gradients):
        expected = model(make_tokens()).logits
        refused = pytest.raises(HeadResultsError, match=rf"(?s){wrapper.__name__}.*{reason}.*Take the hook off")
        with refused, instrumentation.caching([RESULT]):
            model(make_tokens())
        assert_same(model(make_tokens()).logits, expected)


def test_a_weight_that_no_view_can_be_made_of(kind: str) -> None:
    model = make_model(Case(kind))
    out = parts(model)["out"]
    matrix = (out.weight.T if kind == "gpt2" else out.weight).detach().clone()
    linear = nn.Linear(D_MODEL, D_MODEL, device=DEVICE)
    linear.weight, linear.bias = nn.Parameter(matrix), out.bias
    put_out(model, linear)
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching([RESULT]) as readable:
        expected = model(make_tokens()).logits
    linear.weight = nn.Parameter(matrix.as_subclass(Whole), requires_grad=False)
    with pytest.raises(NotImplementedError):
        linear.weight.T  # noqa: B018
    with instrumentation.caching([RESULT]) as cache:
        assert_same(model(make_tokens()).logits, expected)
    assert_close(cache[RESULT], readable[RESULT], RESULT, **CLOSE)


def test_backward_hooks_on_an_adapter_are_not_run_by_looking(kind: str) -> None:
    model = adapted(kind)
    instrumentation = mishformer_lens.instrument(model)
    handle = parts(model)["out"].down.register_full_backward_hook(lambda module, before, after: pytest.fail("run"))
    with pytest.raises(HeadResultsError, match="backward hooks"), instrumentation.caching([RESULT]):
        model(make_tokens())
    handle.remove()
    with instrumentation.caching([RESULT]) as cache:
        model(make_tokens())
    assert RESULT in cache


def test_a_parametrized_weight_is_not_computed_anew(kind: str) -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            Counting.calls += 1
            return weight * 2

    model = make_model(Case(kind))
    nn.utils.parametrize.register_parametrization(parts(model)["out"], "weight", Counting(), unsafe=True)
    instrumentation = mishformer_lens.instrument(model)
    outputs: list[torch.Tensor] = []
    parts(model)["out"].register_forward_hook(lambda module, arguments, output: outputs.append(output.detach()))
    before = Counting.calls
    with torch.no_grad(), instrumentation.caching([RESULT]) as cache:
        model(make_tokens())
    assert Counting.calls == before + 1
    assert_close(cache[RESULT].sum(-2) + parts(model)["out"].bias.detach(), outputs[0], RESULT, **CLOSE)


def test_pruned_heads_are_those_that_are_left() -> None:
    """The module's heads count, not the configuration's."""
    model = make_model(Case("gpt2"))
    if not capabilities.prunes_heads("gpt2"):
        pytest.skip("this release prunes no heads")
    model.prune_heads({0: [1]})
    plain = model(make_tokens()).logits
    instrumentation = mishformer_lens.instrument(model)
    inputs = [f"blocks.0.hook_{part}" for part in ("attn_in", "q_input", "k_input", "v_input")]
    with torch.no_grad(), instrumentation.caching([*inputs, RESULT, "blocks.0.attn.hook_z"]) as cache:
        assert_same(model(make_tokens()).logits, plain)
    assert {cache[name].shape[2] for name in cache} == {N_HEADS - 1}
    weight = model.transformer.h[0].attn.c_proj.weight.unflatten(0, (N_HEADS - 1, D_HEAD))
    expected = torch.einsum("bphd,hdm->bphm", cache["blocks.0.attn.hook_z"], weight)
    assert_close(cache[RESULT], expected, RESULT, **CLOSE)
    for name in inputs:
        with hooked(instrumentation.hook_points, {name: lambda activation, hook: activation.clone()}):
            assert_close(model(make_tokens()).logits, plain, name, **CLOSE)


def test_a_projection_cut_to_fewer_heads_by_hand() -> None:
    """GPT-NeoX's attention has no number of heads of its own in some releases: results follow from what is there."""
    model = make_model(Case("gpt_neox"))
    instrumentation = mishformer_lens.instrument(model)
    attention = first_block(model).attention
    attention.query_key_value = nn.Linear(D_MODEL, 2 * 3 * D_HEAD)
    attention.dense = nn.Linear(2 * D_HEAD, D_MODEL)
    attention.hidden_size, attention.num_attention_heads = 2 * D_HEAD, 2
    with instrumentation.caching([RESULT]) as cache:
        model(make_tokens())
    assert cache[RESULT].shape == (BATCH, POS, 2, D_MODEL)
    with (
        hooked(instrumentation.hook_points, {"blocks.0.hook_q_input": lambda activation, hook: activation * 1.0}),
        pytest.raises(HeadResultsError, match="gives 48 numbers, where 4 heads have 96"),
    ):
        model(make_tokens())


def test_an_attention_that_is_called_by_itself_does_not_meet_its_block_s_hooks(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    attention = getattr(first_block(model), "attn", None) or first_block(model).attention
    arguments: dict[str, Any] = {}
    handle = attention.register_forward_pre_hook(
        lambda module, args, kwargs: arguments.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    model(make_tokens(), use_cache=False)
    handle.remove()
    name = "blocks.0.hook_q_input"
    expected = attention(*arguments["args"], **arguments["kwargs"])
    with instrumentation.caching([name]) as cache:
        assert_same(attention(*arguments["args"], **arguments["kwargs"]), expected)
    assert not cache
    with hooked(instrumentation.hook_points, {name: lambda activation, hook: activation * 0}):
        assert_same(attention(*arguments["args"], **arguments["kwargs"]), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_layer_norm_whose_scale_is_looked_at_gives_the_same_bits(dtype: torch.dtype) -> None:
    plain, model = make_model(Case("gpt2", dtype=dtype)), make_model(Case("gpt2", dtype=dtype))
    instrumentation = mishformer_lens.instrument(model)
    x = torch.randn(BATCH, POS, D_MODEL, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    found = []
    for norm, names in ((plain.transformer.ln_f, []), (model.transformer.ln_f, ["ln_final.hook_scale"])):
        source = x.clone().requires_grad_()
        with instrumentation.caching(names) as cache:
            output = norm(source)
        output.square().sum().backward()
        found.append((output.detach(), source.grad, norm.weight.grad, norm.bias.grad))
    assert_same(found[1], found[0])
    scale = cache["ln_final.hook_scale"]
    assert scale.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    definition = (x.double().var(-1, correction=0, keepdim=True) + plain.transformer.ln_f.eps).sqrt()
    assert_close(scale.double(), definition, "scale", rtol=1e-6, atol=1e-6)
