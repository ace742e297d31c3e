"""An edit reaches what the contract says, and nothing else, in every family."""

from collections.abc import Iterable
from typing import Any

import torch

import mishformer_lens
from tests.conformance.families.contract import SCORES, block_of, contract, reached_from, unflagged
from tests.kinds import kinds
from tests.models import N_HEADS, Case, make_model, make_tokens
from tests.recording import Values, changed, hooked, noise_like, recorded


def observed(case: Case, edited: str) -> list[str]:
    """What to record beside an edit: under a fused kernel, scores and pattern only in a layer that is eager anyway."""
    eager_block = block_of(edited) if edited.endswith(SCORES) or case.attention == "eager" else None
    return [
        name
        for name in dict.fromkeys([*unflagged(case.kind), edited])
        if not name.endswith(SCORES) or case.attention == "eager" or block_of(name) == eager_block
    ]


def run(model: Any, points: Any, names: Iterable[str], edited: str, edit: Any) -> Values:
    """One pass with an edit: every activation as it was before its own edit, and the logits."""
    with torch.no_grad(), recorded(points, names) as values, hooked(points, {edited: edit}):
        values["logits"].append(model(make_tokens()).logits)
    return values


def test_an_edit_reaches_what_the_contract_says_and_nothing_else(float32_case: Case) -> None:
    case = float32_case
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    passes: dict[tuple[str, ...], Values] = {}
    for name in contract(case.kind):
        names = tuple(observed(case, name))
        if names not in passes:
            passes[names] = run(model, points, names, name, lambda activation, hook: None)
        before = passes[names]
        after = run(model, points, names, name, lambda activation, hook: activation + noise_like(activation))
        expected = (reached_from(case.kind, name) | {"logits"}) & before.keys()
        found = changed(before, after)
        # What comes before the choice of experts may be edited and leave it as it is.
        choices = {each for each in names if each.endswith("hook_expert_indices")} - {name}
        if name.endswith("hook_expert_weights") and not kinds()[case.kind].weights_after_choice:
            choices.remove(f"{block_of(name)}mlp.hook_expert_indices")
        if ".mlp.experts." in name:
            # Only some tokens are edited, and none that attends to them may go to an expert of a later block.
            choices |= {each for each in names if ".mlp.experts." in each and block_of(each) != block_of(name)}
        assert found - choices == expected - choices, name
        assert found <= expected, name


def test_an_edit_of_a_key_value_head_reaches_the_heads_that_share_it(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    groups = kinds()[kind].key_value_heads
    size = N_HEADS // groups

    def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        changed = activation.clone()
        changed[:, :, -1] += noise_like(changed[:, :, -1])
        return changed

    names = ["blocks.0.attn.hook_z"]
    for hook in ("attn.hook_k", "attn.hook_v", *(["attn.hook_rot_k"] if kinds()[kind].rotary else [])):
        if kinds()[kind].query_key_norm == "joined" and hook == "attn.hook_k":
            continue  # one norm over all heads: each of them reaches the others
        (before,) = run(model, points, names, f"blocks.0.{hook}", lambda activation, hook: None)[names[0]]
        (after,) = run(model, points, names, f"blocks.0.{hook}", edit)[names[0]]
        moved = [head for head in range(N_HEADS) if not torch.equal(before[:, :, head], after[:, :, head])]
        assert moved == list(range(N_HEADS - size, N_HEADS)), hook


def test_doubling_a_scale_halves_what_stands_before_the_gain(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    for name in contract(kind):
        if name.endswith("hook_scale"):
            normalized = name.replace("hook_scale", "hook_normalized")
            (before,) = run(model, points, [normalized], name, lambda activation, hook: None)[normalized]
            (after,) = run(model, points, [normalized], name, lambda activation, hook: activation * 2)[normalized]
            if kinds()[kind].norm == "rms":
                torch.testing.assert_close(after, before / 2, rtol=1e-5, atol=1e-6)
            else:
                # The bias comes on top: the same everywhere.
                bias = (2 * after - before).flatten(0, -2)
                torch.testing.assert_close(bias, bias[:1].expand_as(bias), rtol=1e-5, atol=2e-6)
                assert not torch.allclose(after, before)
