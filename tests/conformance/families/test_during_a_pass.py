"""What hooks do beside looking at their activation: they take themselves off, and run other models."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests import recording
from tests.conformance.families.contract import contract
from tests.models import Case, make_model, make_tokens
from tests.recording import assert_same, hooked


def scaled(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    return recording.scaled(activation, 1.25)


def scaled_once(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    hook.remove_hooks()
    return recording.scaled(activation, 1.25)


@pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")
@pytest.mark.parametrize("gradients", [True, False])
def test_a_hook_that_takes_itself_off_acts_in_that_pass_and_in_no_other(kind: str, gradients: bool) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    tokens = make_tokens()
    with torch.set_grad_enabled(gradients):
        plain = model(tokens).logits
        for name in contract(kind):
            if not name.startswith("blocks.0."):
                continue
            with hooked(points, {name: scaled}):
                edited = model(tokens).logits
            points[name].add_hook(scaled_once)
            assert_same(model(tokens).logits, edited, name)
            assert_same(model(tokens).logits, plain, f"after {name}")


def test_a_hook_may_run_another_model_whose_inputs_of_heads_have_hooks(kind: str) -> None:
    model, other = make_model(Case(kind)), make_model(Case("llama"))
    points, others = (mishformer_lens.instrument(each).hook_points for each in (model, other))
    tokens = make_tokens()
    mine = {"blocks.0.hook_q_input": scaled, "blocks.0.hook_v_input": scaled}
    with hooked(points, mine):
        expected = model(tokens).logits

    def run_other(activation: torch.Tensor, hook: Any) -> None:
        other(tokens)

    with (
        hooked(others, {"blocks.0.hook_k_input": scaled}),
        hooked(points, mine | {"blocks.0.attn.hook_q": run_other}),
    ):
        assert_same(model(tokens).logits, expected)


def test_inputs_of_heads_that_no_attention_took_are_in_no_later_pass(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    tokens = make_tokens()
    plain = model(tokens).logits

    def fail(activation: torch.Tensor, hook: Any) -> None:
        raise ZeroDivisionError

    looking = {"blocks.0.attn.hook_v": lambda activation, hook: None}
    with hooked(points, {"blocks.0.hook_v_input": scaled, "blocks.0.attn.hook_q": fail}):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                model(tokens)
    with hooked(points, looking):
        assert_same(model(tokens).logits, plain)
    with hooked(points, {"blocks.0.hook_v_input": lambda activation, hook: None}):
        few = model(tokens[:1, :3]).logits
    assert few.shape[:2] == (1, 3)


@pytest.mark.parametrize("name", ["hook_embed", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"])
def test_an_edit_in_place_reaches_neither_the_caller_s_tensors_nor_what_the_model_returns(kind: str, name: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    embeddings = model.get_input_embeddings()(make_tokens()).detach()
    given = embeddings.clone()

    def in_place(activation: torch.Tensor, hook: Any) -> None:
        activation.mul_(1.25)

    found = []
    for edit in (scaled, in_place):
        with torch.no_grad(), hooked(points, {name: edit}):
            found.append(model(inputs_embeds=given, output_hidden_states=True))
        assert_same(given, embeddings)
    assert_same(found[1].logits, found[0].logits, "logits")
    assert_same(found[1].hidden_states, found[0].hidden_states, "hidden states")
