"""An edit reaches what the contract says, and nothing else."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.contract import block_of, contract, reached_from, unflagged
from tests.models import Case, make_model, make_tokens
from tests.recording import Values, changed, hooked, noise_like, recorded


def observed(case: Case, edited: str) -> list[str]:
    """What to record beside an edit: under a fused kernel, scores and pattern only in a layer that is eager anyway."""
    scores = ("hook_attn_scores", "hook_pattern")
    eager_block = block_of(edited) if edited.endswith(scores) or case.attention == "eager" else None
    return [
        name
        for name in dict.fromkeys([*unflagged(case.kind), edited])
        if not name.endswith(scores) or case.attention == "eager" or block_of(name) == eager_block
    ]


def run(case: Case, model: Any, points: Any, edited: str, edit: Any) -> Values:
    """One pass with an edit: every activation as it was before its own edit, and the logits."""
    with torch.no_grad(), recorded(points, observed(case, edited)) as values, hooked(points, {edited: edit}):
        values["logits"].append(model(make_tokens()).logits)
    return values


def test_an_edit_reaches_what_the_contract_says_and_nothing_else(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    for name in contract(case.kind):
        before = run(case, model, points, name, lambda activation, hook: None)
        after = run(case, model, points, name, lambda activation, hook: activation + noise_like(activation))
        expected = (reached_from(case.kind, name) | {"logits"}) & before.keys()
        assert changed(before, after) == expected, name


ZEROED = ("hook_resid_pre", "hook_mlp_out", "attn.hook_z", "attn.hook_pattern", "attn.hook_v")


@pytest.mark.parametrize("part", ZEROED)
def test_zeroing_an_activation(case: Case, part: str) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    name = f"blocks.0.{part}"
    before = run(case, model, points, name, lambda activation, hook: None)
    after = run(case, model, points, name, lambda activation, hook: torch.zeros_like(activation))
    assert changed(before, after) == (reached_from(case.kind, name) | {"logits"}) & before.keys()
    zero: dict[str, tuple[str, Any]] = {
        "hook_resid_pre": ("ln1.hook_normalized", model_bias(model, case.family, "ln1")),
        "attn.hook_pattern": ("attn.hook_z", 0.0),
        "attn.hook_v": ("attn.hook_z", 0.0),
        "attn.hook_z": ("hook_attn_out", model_bias(model, case.family, "attention output")),
    }
    if part in zero:
        follower, value = zero[part]
        found = after[f"blocks.0.{follower}"][0]
        assert torch.equal(found, torch.zeros_like(found) + value)
    else:
        (resid_post,), (resid_pre,) = after["blocks.0.hook_resid_post"], after["blocks.0.hook_resid_pre"]
        (attn_out,) = after["blocks.0.hook_attn_out"]
        tolerance = 1e-6 if case.dtype == torch.float32 else 2e-2
        torch.testing.assert_close(resid_post, resid_pre + attn_out, rtol=tolerance, atol=tolerance)


def model_bias(model: Any, family: str, place: str) -> torch.Tensor:
    """The bias of the first block's layer norm or attention output."""
    if family == "gpt2":
        block = model.transformer.h[0]
        module = {"ln1": block.ln_1, "attention output": block.attn.c_proj}[place]
    else:
        block = model.gpt_neox.layers[0]
        module = {"ln1": block.input_layernorm, "attention output": block.attention.dense}[place]
    bias: torch.Tensor = module.bias.detach()
    return bias


@pytest.mark.parametrize("norm", ["blocks.0.ln1", "blocks.1.ln2", "ln_final"])
def test_doubling_a_scale_halves_what_stands_before_gain_and_bias(case: Case, norm: str) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    name = f"{norm}.hook_scale"
    before = run(case, model, points, name, lambda activation, hook: None)
    after = run(case, model, points, name, lambda activation, hook: activation * 2)
    places = {
        "gpt2": {
            "blocks.0.ln1": "transformer.h.0.ln_1",
            "blocks.1.ln2": "transformer.h.1.ln_2",
            "ln_final": "transformer.ln_f",
        },
        "gpt_neox": {
            "blocks.0.ln1": "gpt_neox.layers.0.input_layernorm",
            "blocks.1.ln2": "gpt_neox.layers.1.post_attention_layernorm",
            "ln_final": "gpt_neox.final_layer_norm",
        },
    }
    bias = model.get_submodule(places[case.family][norm]).bias.detach().float()
    full, half = (run_[f"{norm}.hook_normalized"][0].float() - bias for run_ in (before, after))
    tolerance = 1e-6 if case.dtype == torch.float32 else 3e-2
    torch.testing.assert_close(half, full / 2, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("copy", ["hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in"])
def test_a_copy_edited_in_place_leaves_the_skip_path_alone(case: Case, copy: str) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    name = f"blocks.1.{copy}"

    def in_place(activation: torch.Tensor, hook: Any) -> None:
        activation.zero_()

    before = run(case, model, points, name, lambda activation, hook: None)
    after = run(case, model, points, name, in_place)
    # What was recorded before the edit is the same; the rest is as for an edit out of place.
    assert changed(before, after) == (reached_from(case.kind, name) | {"logits"}) & before.keys()


def test_editing_one_head_of_a_head_s_input_reaches_that_head_only(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    for copy, reached in (("hook_attn_in", "qkv"), ("hook_q_input", "q"), ("hook_k_input", "k"), ("hook_v_input", "v")):

        def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
            return torch.cat(
                [
                    activation[:, :, :2],
                    activation[:, :, 2:3] * 0.5 + 1.0 * noise_like(activation[:, :, 2:3]),
                    activation[:, :, 3:],
                ],
                2,
            )

        name = f"blocks.0.{copy}"
        before = run(case, model, points, name, lambda activation, hook: None)
        after = run(case, model, points, name, edit)
        for letter in "qkv":
            one, other = before[f"blocks.0.attn.hook_{letter}"][0], after[f"blocks.0.attn.hook_{letter}"][0]
            changed_heads = [head for head in range(4) if not torch.equal(one[:, :, head], other[:, :, head])]
            assert changed_heads == ([2] if letter in reached else []), (copy, letter)
