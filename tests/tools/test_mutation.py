"""Mutants of edits, and what a run of them is summed up to. Nothing here is run against a model."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from mishformer_lens.engine import Edits, patch_source
from mishformer_lens.patchers import FAMILIES, Family, Variant
from tools import mutation
from tools.mutants import Mutant, make_mutants
from tools.mutation import Trial, difference, problems, read_equivalent, summarize

SOURCE = '''\
def helper(module, scores):
    weights = softmax(scores)
    return weights


class Block:
    def forward(self, hidden_states):
        """Says what it does."""
        residual = hidden_states
        hidden_states = self.norm(hidden_states)
        attended = self.split(hidden_states).transpose(1, 2)
        attended = self.dense(attended)
        hidden_states = attended + residual
        return self.finish(hidden_states)
'''
EDITS = {
    "helper": [("softmax(scores)", "softmax(module.hook_scores(scores))")],
    "Block.forward": [
        (
            "residual = hidden_states",
            "hidden_states = self.hook_resid_pre(hidden_states)\nresidual = hidden_states",
        ),
        ("self.norm(hidden_states)", "self.attention_inputs.normalize(self.norm, hidden_states)"),
        (
            "self.split(hidden_states).transpose(1, 2)",
            "self.hook_q.heads_first(self.split(hidden_states).transpose(1, 2), copy=True)",
        ),
        ("attended + residual", "self.hook_resid_post(attended + residual)"),
        ("self.finish(hidden_states)", "self.finish(self.hook_mlp_in.copied(hidden_states))"),
    ],
}


def texts(mutant: Mutant) -> str:
    return ast.unparse(ast.parse(patch_source(SOURCE, mutant.edits).text))


def of(what: str) -> str:
    """The patched source with one mutation."""
    (found,) = [mutant for mutant in make_mutants(SOURCE, EDITS) if mutant.what == what]
    return texts(found)


def test_every_edit_is_dropped_once() -> None:
    drops = [mutant for mutant in make_mutants(SOURCE, EDITS) if mutant.drops_edit]
    assert [(mutant.member, mutant.edits_at) for mutant in drops] == [
        (member, (position,)) for member, edits in EDITS.items() for position in range(len(edits))
    ]
    assert "self.hook_resid_post(" not in texts(drops[4])
    assert "self.hook_resid_pre(" in texts(drops[4])


def test_every_mutant_is_python_and_differs_from_the_edits_and_from_every_other_but_drops_of_edits() -> None:
    mutants = make_mutants(SOURCE, EDITS)
    patched = ast.unparse(ast.parse(patch_source(SOURCE, EDITS).text))
    found = [texts(mutant) for mutant in mutants if not mutant.drops_edit]
    assert patched not in found
    assert len(set(found)) == len(found) > 15
    assert len({(mutant.member, mutant.what) for mutant in mutants}) == len(mutants)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("module.hook_scores: drop", "weights = softmax(scores)"),
        ("module.hook_scores: move outwards", "weights = module.hook_scores(softmax(scores))"),
        (
            "self.hook_resid_pre: move down",
            "residual = hidden_states\n        hidden_states = self.hook_resid_pre(",
        ),
        ("self.attention_inputs.normalize: drop", "hidden_states = self.norm(hidden_states)"),
        ("self.hook_q.heads_first: plain call", "self.hook_q(self.split(hidden_states).transpose(1, 2))"),
        ("self.hook_q.heads_first: without copy", "self.hook_q.heads_first(self.split(hidden_states).transpose(1, 2))"),
        (
            "self.hook_q.heads_first: move inwards, to self.split(hidden_states)",
            "self.hook_q.heads_first(self.split(hidden_states), copy=True).transpose(1, 2)",
        ),
        ("self.hook_resid_post: move inwards, to attended", "self.hook_resid_post(attended) + residual"),
        ("self.hook_resid_post: move inwards, to residual", "attended + self.hook_resid_post(residual)"),
        ("self.hook_mlp_in.copied: plain call", "self.finish(self.hook_mlp_in(hidden_states))"),
        ("self.hook_mlp_in.copied: move outwards", "self.hook_mlp_in.copied(self.finish(hidden_states))"),
        (
            "self.hook_mlp_in.copied: move up",
            "hidden_states = self.hook_mlp_in.copied(hidden_states)\n        hidden_states = self.hook_resid_post(",
        ),
    ],
)
def test_what_a_mutation_makes(what: str, expected: str) -> None:
    assert expected in of(what)


def test_a_hook_for_the_branch_is_made_one_for_the_skip_path_only_where_that_makes_a_difference() -> None:
    edits = {"Block.forward": [("self.split(hidden_states)", "self.split(self.hook_in.copied(hidden_states))")]}
    assert "self.hook_in.copied: skip path too" not in [mutant.what for mutant in make_mutants(SOURCE, edits)]
    edits = {"Block.forward": [("self.norm(hidden_states)", "self.norm(self.hook_in.copied(hidden_states))")]}
    assert "self.hook_in.copied: skip path too" not in [mutant.what for mutant in make_mutants(SOURCE, edits)]
    edits = {"Block.forward": [("self.dense(attended)", "self.dense(self.hook_in.copied(residual))")]}
    assert "self.hook_in.copied: skip path too" in [mutant.what for mutant in make_mutants(SOURCE, edits)]


@pytest.fixture
def trials() -> list[Trial]:
    variant = Variant("gpt2", "v9_9", EDITS)
    mutants = make_mutants(SOURCE, EDITS)
    found = [Trial(variant, mutant, "killed", "tests/test_it.py") for mutant in mutants]
    return [Trial(variant, None, "survived"), *found]


def test_all_killed_is_a_hundred_percent(trials: list[Trial]) -> None:
    found = summarize(trials[0].variant, trials, [])
    assert (found.edits_caught, found.edits) == (6, 6)
    assert found.killed == found.mutants == len(trials) - 1
    assert not found.survivors


def test_a_survivor_is_counted_unless_it_is_equivalent(trials: list[Trial]) -> None:
    trials[-1].outcome = "survived"
    assert summarize(trials[0].variant, trials, []).survivors == (trials[-1],)
    found = summarize(trials[0].variant, trials, [trials[-1].name])
    assert not found.survivors
    assert found.equivalent == 1


def test_an_edit_whose_removal_survives_lowers_the_figure_even_if_it_is_listed(trials: list[Trial]) -> None:
    trials[1].outcome = "survived"
    assert summarize(trials[0].variant, trials, [trials[1].name]).edits_caught == 5


def test_a_moved_hook_that_cannot_run_does_not_count_and_a_dropped_edit_does(trials: list[Trial]) -> None:
    trials[1].outcome = trials[-1].outcome = "does not run"
    found = summarize(trials[0].variant, trials, [])
    assert found.mutants == len(trials) - 2
    assert found.edits_caught == 6


def test_an_equivalent_mutant_that_is_caught_or_does_not_exist_is_a_problem(trials: list[Trial]) -> None:
    trials[-1].outcome = "survived"
    assert problems(trials, [trials[-1].name]) == []
    assert "tests/test_it.py caught it" in problems(trials, [trials[-2].name])[0]
    assert "there is no such mutant" in problems(trials, [("gpt2", "Block.forward", "self.hook_nothing: drop")])[0]


def test_the_list_of_equivalent_mutants_has_reasons_and_variants_that_exist() -> None:
    variants = [variant for family in FAMILIES.values() for variant in family.variants]
    assert all(len(reason) > 20 for reason in read_equivalent(mutation.EQUIVALENT, variants).values())


def test_entries_of_other_variants_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    path.write_text(
        '[[equivalent]]\nfamily = "gpt2"\nvariants = ["v4_44"]\nmember = "A.b"\nmutants = ["c", "d"]\nreason = "e"\n'
    )
    family = FAMILIES["gpt2"]
    found = read_equivalent(path, [family.variant("v4_44")])
    assert found == {("gpt2", "A.b", "c"): "e", ("gpt2", "A.b", "d"): "e"}
    assert read_equivalent(path, [family.variant("v4_48")]) == {}


def test_the_difference_shows_both(trials: list[Trial]) -> None:
    (mutant,) = [trial.mutant for trial in trials if trial.mutant and trial.mutant.what == "module.hook_scores: drop"]
    lines = difference(mutant).splitlines()
    assert "-weights = softmax(module.hook_scores(scores))" in lines
    assert "+weights = softmax(scores)" in lines


def test_the_report_has_the_figures_and_shows_survivors(
    trials: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutation.report(trials) == 0
    printed = capsys.readouterr().out
    assert "gpt2 v9_9: 6 of 6 edits are caught when removed (100%)" in printed
    assert " 0 survived" in printed
    trials[-1].outcome = "survived"
    assert mutation.report(trials) == 1
    printed = capsys.readouterr().out
    assert f"SURVIVED {': '.join(trials[-1].name)}\n--- as it is" in printed
    assert " 1 survived" in printed


FORM: Edits = {"MLP.forward": [("act(x)", "self.hook_post(act(x))")]}


def follower(name: str, prefix: str, edits: Edits) -> tuple[Family, Variant]:
    family = dataclasses.replace(FAMILIES["llama"], name=name, prefix=prefix)
    return family, Variant(name, "v9_9", {f"{prefix}{member}": entries for member, entries in edits.items()})


def test_every_form_is_tried_once_with_few_families() -> None:
    norm: Edits = {"Norm.forward": [("y", "self.hook_scale(y)")]}
    other: Edits = {"MLP.forward": [("act(z)", "self.hook_post(act(z))")]}
    variants = [
        follower("one", "One", FORM),
        follower("two", "Two", {**FORM, **norm}),
        follower("three", "Three", {**other, **norm}),
        follower("four", "Four", FORM),
    ]
    assert mutation.choose_members(variants) == {
        "two": {"TwoMLP.forward", "TwoNorm.forward"},
        "three": {"ThreeMLP.forward"},
    }


def test_families_without_a_template_are_tried_with_all_that_they_have() -> None:
    variants = [(FAMILIES[name], FAMILIES[name].variants[-1]) for name in ("gpt2", "gpt_neox", "llama")]
    chosen = mutation.choose_members(variants)
    assert chosen == {family.name: set(variant.edits) for family, variant in variants}
