"""Every hook point of every family fires once, in order, with its shape; replacing it by itself changes nothing."""

from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import HookShapeError, UnknownHookError
from tests import outcome_plugin
from tests.conformance.families.conftest import here
from tests.conformance.families.contract import COPIES, contract, leaves_a_kernel, of_one_block, unflagged
from tests.kinds import kinds
from tests.models import N_HEADS, Case, make_model, make_tokens
from tests.recording import assert_same, hooked, recorded, scale_in_place, scaled


def test_a_kind_is_named_after_its_family(kind: str) -> None:
    assert outcome_plugin.family_of(kind) == kinds()[kind].family


def test_hook_points_are_those_of_the_contract_in_its_order(kind: str) -> None:
    points = mishformer_lens.instrument(make_model(Case(kind))).hook_points
    assert list(points) == list(contract(kind))


def test_every_hook_point_fires_once_in_order_with_its_shape(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    fired: list[tuple[str, tuple[int, ...]]] = []

    def note(activation: torch.Tensor, hook: Any) -> None:
        fired.append((hook.name, tuple(activation.shape)))

    with hooked(points, dict.fromkeys(unflagged(case.kind), note)):
        model(make_tokens())
    assert [name for name, _ in fired] == unflagged(case.kind)
    assert [name for name, shape in fired if not contract(case.kind)[name].fits(shape)] == []


def test_a_flagged_hook_point_fires_without_a_flag(float32_case: Case) -> None:
    case = float32_case
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    for name, entry in contract(case.kind).items():
        if entry.flagged:
            with recorded(points, [name]) as values:
                model(make_tokens())
            (value,) = values[name]
            assert entry.fits(tuple(value.shape))


def test_replacing_an_activation_by_itself_changes_nothing(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    tokens = make_tokens()
    fused = model(tokens, labels=tokens, output_hidden_states=True)
    for name in of_one_block(case):
        expected = fused
        if leaves_a_kernel(name, case):
            # The layer is eager while anybody listens; to be compared with that.
            with recorded(points, [name]):
                expected = model(tokens, labels=tokens, output_hidden_states=True)
        with hooked(points, {name: lambda activation, hook: activation.clone()}):
            output = model(tokens, labels=tokens, output_hidden_states=True)
        assert_same(output, expected, name)


def test_a_hook_may_edit_in_place(float32_case: Case) -> None:
    model = make_model(float32_case)
    points = mishformer_lens.instrument(model).hook_points

    def in_place(activation: torch.Tensor, hook: Any) -> None:
        scale_in_place(activation, 0.5)

    for name in of_one_block(float32_case):
        with hooked(points, {name: lambda activation, hook: scaled(activation, 0.5)}):
            expected = model(make_tokens()).logits
        with hooked(points, {name: in_place}):
            assert_same(model(make_tokens()).logits, expected, name)


def test_a_hook_that_returns_another_shape_is_refused(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    expected = model(make_tokens()).logits
    for name in of_one_block(Case(kind)):
        with (
            hooked(points, {name: lambda activation, hook: activation[:, :-1]}),
            pytest.raises(HookShapeError, match=name),
        ):
            model(make_tokens())
    assert_same(model(make_tokens()).logits, expected)


def test_what_a_kind_does_not_have_is_refused_by_name(kind: str) -> None:
    instrumentation = mishformer_lens.instrument(make_model(Case(kind)))
    post_norm = "blocks.0.ln1_post.hook_scale"
    of_mlps = ("blocks.0.mlp.hook_pre", "blocks.0.mlp.hook_expert_weights", "blocks.0.mlp.experts.0.hook_gate")
    for name in ("hook_pos_embed", "blocks.0.hook_resid_mid", "blocks.0.hook_attn_in", post_norm, *of_mlps):
        if name not in contract(kind) and not (kinds()[kind].norms == "after" and name == post_norm):
            assert name not in instrumentation.hook_points
            with pytest.raises(UnknownHookError, match="has no hook point"):
                instrumentation[name]


@pytest.mark.parametrize("kind", [each for each in here() if kinds()[each].norms == "after"])
def test_norms_behind_attention_and_mlp_have_the_bridge_s_names_too(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    for norm in ("ln1", "ln2"):
        for hook in ("hook_scale", "hook_normalized"):
            own, alias = f"blocks.1.{norm}.{hook}", f"blocks.1.{norm}_post.{hook}"
            assert instrumentation[alias] is instrumentation[own]
            assert alias in instrumentation.hook_points
            with instrumentation.caching([alias]) as cache:
                model(make_tokens())
            assert list(cache) == [own]
    assert list(instrumentation.hook_points) == list(contract(kind))
    with pytest.raises(UnknownHookError):
        instrumentation["blocks.1.ln3_post.hook_scale"]


def test_an_edit_of_one_head_s_input_reaches_that_head_only(kind: str) -> None:
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    heads = {"q": N_HEADS, "k": kinds()[kind].key_value_heads, "v": kinds()[kind].key_value_heads}
    watched = [f"blocks.0.attn.hook_{letter}" for letter in heads]
    for copy in COPIES:
        if f"blocks.0.{copy}" not in contract(kind):
            continue

        def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
            changed = activation.clone()
            changed[:, :, -1, ::2] += 0.3
            return changed

        with recorded(points, watched) as before:
            model(make_tokens())
        with hooked(points, {f"blocks.0.{copy}": edit}), recorded(points, watched) as after:
            model(make_tokens())
        for letter, number in heads.items():
            one, other = before[f"blocks.0.attn.hook_{letter}"][0], after[f"blocks.0.attn.hook_{letter}"][0]
            changed = [head for head in range(number) if not torch.allclose(one[:, :, head], other[:, :, head])]
            assert changed == ([number - 1] if copy in ("hook_attn_in", f"hook_{letter}_input") else []), (copy, letter)
