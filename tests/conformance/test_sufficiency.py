"""A value taken from one run and put into another makes what it determines equal to the first run's, bit by bit."""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.contract import contract, unflagged
from tests.models import Case, make_model, make_tokens
from tests.recording import Values, hooked, recorded

# What is patched in a block -> what it determines in that block. {block}. is put before every name.
WITHIN = {
    ("ln1.hook_normalized",): ("attn.hook_q", "attn.hook_k", "attn.hook_v", "hook_attn_out"),
    ("hook_attn_in",): ("attn.hook_q", "attn.hook_k", "attn.hook_v", "hook_attn_out"),
    ("hook_q_input",): ("attn.hook_q", "attn.hook_rot_q"),
    ("hook_k_input",): ("attn.hook_k", "attn.hook_rot_k"),
    ("hook_v_input",): ("attn.hook_v",),
    ("hook_q_input", "hook_k_input", "hook_v_input"): ("attn.hook_q", "attn.hook_k", "attn.hook_v", "hook_attn_out"),
    ("attn.hook_q",): ("attn.hook_rot_q",),
    ("attn.hook_k",): ("attn.hook_rot_k",),
    ("attn.hook_q", "attn.hook_k"): ("attn.hook_attn_scores", "attn.hook_pattern"),
    ("attn.hook_q", "attn.hook_k", "attn.hook_v"): ("attn.hook_pattern", "attn.hook_z", "hook_attn_out"),
    ("attn.hook_rot_q", "attn.hook_rot_k"): ("attn.hook_attn_scores", "attn.hook_pattern"),
    ("attn.hook_attn_scores",): ("attn.hook_pattern",),
    ("attn.hook_attn_scores", "attn.hook_v"): ("attn.hook_pattern", "attn.hook_z", "hook_attn_out"),
    ("attn.hook_pattern", "attn.hook_v"): ("attn.hook_z", "hook_attn_out"),
    ("attn.hook_z",): ("hook_attn_out",),
    ("hook_resid_mid",): ("ln2.hook_scale", "ln2.hook_normalized", "hook_mlp_out", "hook_resid_post"),
    ("hook_mlp_in",): ("ln2.hook_scale", "ln2.hook_normalized", "hook_mlp_out"),
    ("ln2.hook_normalized",): ("mlp.hook_pre", "mlp.hook_post", "hook_mlp_out"),
    ("mlp.hook_pre",): ("mlp.hook_post", "hook_mlp_out"),
    ("mlp.hook_post",): ("hook_mlp_out",),
    ("hook_resid_pre", "hook_attn_out", "hook_mlp_out"): ("hook_resid_post",),
}


def run(model: Any, patched: tuple[str, ...], tokens: torch.Tensor, values: Values | None = None) -> Values:
    """Every activation of a pass over ``tokens``, with those named in ``patched`` taken from ``values``, if given."""
    points = mishformer_lens.instrument(model).hook_points
    flags = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_result", "hook_mlp_in")
    watched = [name for name in points if name not in patched and not name.endswith(flags)]
    with torch.no_grad(), recorded(points, [*watched, *patched]) as recording, hooked(points, patches(patched, values)):
        recording["logits"].append(model(tokens).logits)
    return recording


def patches(patched: tuple[str, ...], values: Values | None) -> dict[str, Any]:
    if values is None:
        return {}
    return {name: lambda activation, hook: values[hook.name][0].clone() for name in patched}


def other_tokens() -> torch.Tensor:
    """As many tokens as :func:`make_tokens` gives, but others."""
    return make_tokens().flip(0).roll(1, 1) % 60 + 1


def determined(a: Values, b: Values, patched: Values, names: list[str]) -> None:
    for name in names:
        assert not all(map(torch.equal, a[name], b[name])), f"{name} is the same in both runs anyway"
        assert all(map(torch.equal, patched[name], a[name])), name


@pytest.mark.parametrize("index", [0, 1])
def test_within_a_block(case: Case, index: int) -> None:
    model = make_model(case)
    known = contract(case.kind)
    for hooks, followers in WITHIN.items():
        patched = tuple(f"blocks.{index}.{name}" for name in hooks)
        if not known.keys() >= set(patched):
            continue  # no rotary embedding in GPT-2, no hook_resid_mid in parallel blocks
        names = [name for follower in followers if (name := f"blocks.{index}.{follower}") in known]
        a, b = run(model, patched, make_tokens()), run(model, patched, other_tokens())
        determined(a, b, run(model, patched, other_tokens(), a), names)


@pytest.mark.parametrize(
    "name",
    ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"],
)
def test_the_residual_stream_determines_all_that_follows(case: Case, name: str) -> None:
    model = make_model(case)
    order = unflagged(case.kind)
    followers = [*order[order.index(name) + 1 :], "logits"]
    a, b = run(model, (name,), make_tokens()), run(model, (name,), other_tokens())
    determined(a, b, run(model, (name,), other_tokens(), a), followers)


def test_embeddings_determine_everything(case: Case) -> None:
    model = make_model(case)
    # The positions are the same in both runs.
    names = [name for name in unflagged(case.kind) if name.startswith(("blocks", "ln_final"))]
    a, b = run(model, ("hook_embed",), make_tokens()), run(model, ("hook_embed",), other_tokens())
    determined(a, b, run(model, ("hook_embed",), other_tokens(), a), [*names, "logits"])


def test_the_last_activation_determines_the_logits(case: Case) -> None:
    model = make_model(case)
    patched = ("ln_final.hook_normalized",)
    a, b = run(model, patched, make_tokens()), run(model, patched, other_tokens())
    determined(a, b, run(model, patched, other_tokens(), a), ["logits"])
