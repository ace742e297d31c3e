"""Records keep what ran, and nothing else passes for one."""

import ast
import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from mishformer_lens.compat import code
from mishformer_lens.compat.outcomes import Counts, read_record, read_records, worst, write_record
from mishformer_lens.errors import OutcomeError
from mishformer_lens.patchers import FAMILIES, Variant
from tests.compat.making_records import make_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_record(make_record(), tmp_path)


def test_reading_gives_what_was_written(path: Path) -> None:
    assert path.name == "5.9.0-cpu.json"
    assert read_record(path) == make_record()
    assert read_records(path.parent) == [make_record()]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_writing_is_the_same_byte_for_byte(path: Path, tmp_path: Path) -> None:
    assert write_record(read_record(path), tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("found", "replaced"),
    [('"failed": 1', '"passed": 1'), ("2026-11-23", "2026-11-24"), ('"gpt_neox"', '"gpt_neo"'), ("cccc", "cccd")],
)
def test_a_change_by_hand_is_named(path: Path, found: str, replaced: str) -> None:
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, replaced, 1))
    with pytest.raises(OutcomeError, match=r"transformers 5\.9\.0 on cpu .* changed by hand"):
        read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"releases": []}', '{"checksum": "x", "schema": 2}', "\x00"])
def test_what_is_no_record(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(OutcomeError, match=re.escape(path.name)):
        read_record(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": {"passed": "many"}},
        {"suite": {"passed": 1.5}},
        {"extra": 1},
        {"runs": [{"family": "gpt2"}]},
        {"date": "soon"},
    ],
)
def test_another_form_is_an_error_even_with_a_checksum(path: Path, changes: dict[str, object]) -> None:
    from mishformer_lens.compat.outcomes import _checksum

    value = json.loads(path.read_text()) | changes
    value.pop("checksum")
    path.write_text(json.dumps(value | {"checksum": _checksum(value)}))
    with pytest.raises(OutcomeError, match="is no recorded outcome"):
        read_record(path)


def test_a_record_under_another_cells_name(path: Path) -> None:
    renamed = path.rename(path.with_name("5.10.4-cpu.json"))
    with pytest.raises(OutcomeError, match="renamed"):
        read_record(renamed)


def test_marks() -> None:
    assert Counts(passed=5, failed=1, xfailed=2).mark == "failed"
    assert Counts(passed=5, xfailed=2).mark == "xfailed"
    assert Counts(passed=5, not_run=9).mark == "passed"
    assert Counts().mark == Counts(not_run=1).mark == worst([]) == "not run"
    assert worst(["passed", "xfailed", "not run"]) == "xfailed"
    assert Counts(1, 2) + Counts(1, 0, 3) == Counts(2, 2, 3)


def test_a_record_of_other_code_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = make_record().family("gpt2")
    assert not outcome.is_stale
    assert dataclasses.replace(outcome, code="0" * 16).is_stale
    copy = tmp_path / "mishformer_lens"
    shutil.copytree(
        Path(code.__file__).parent.parent, copy, ignore=shutil.ignore_patterns("__pycache__", "checkpoints")
    )
    monkeypatch.setattr(code, "_PACKAGE", copy)
    assert not outcome.is_stale

    def stale_after(file: str, old: str, new: str) -> bool:
        text = (copy / file).read_text()
        assert old in text
        (copy / file).write_text(text.replace(old, new, 1))
        return outcome.is_stale

    assert not stale_after("hooks.py", "import torch\n", "import torch  # a comment\n")
    assert stale_after("hooks.py", "return activation", "return -activation")


def test_code_that_a_family_does_not_use_leaves_its_records_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mishformer_lens"
    shutil.copytree(
        Path(code.__file__).parent.parent, copy, ignore=shutil.ignore_patterns("__pycache__", "checkpoints")
    )
    monkeypatch.setattr(code, "_PACKAGE", copy)
    chosen = {family: FAMILIES[family].variants[-1].name for family in ("gpt2", "llama")}

    def changed_by(file: str, text: str) -> set[str]:
        before = {family: code.code_fingerprint(family, variant) for family, variant in chosen.items()}
        (copy / file).write_text((copy / file).read_text() + text)
        return {each for each, variant in chosen.items() if before[each] != code.code_fingerprint(each, variant)}

    assert changed_by("hooks.py", "\n\ndef more(): return 1\n") == {"gpt2", "llama"}
    assert changed_by("attention_call.py", "\n\ndef more(): return 1\n") == {"llama"}
    assert changed_by("compat/tables.py", "\n\ndef more(): return 1\n") == set()
    norms = copy / "norms.py"
    for cls, family in (("NormHooks", "llama"), ("HookedLayerNorm", "gpt2")):
        before = {each: code.code_fingerprint(each, variant) for each, variant in chosen.items()}
        text = norms.read_text()
        assert text.count(f"class {cls}") == 1
        head, _, tail = text.partition(f"class {cls}")
        line, _, rest = tail.partition("\n")
        norms.write_text(f"{head}class {cls}{line}\n    more = 1\n{rest}")
        after = {each: code.code_fingerprint(each, variant) for each, variant in chosen.items()}
        assert {each for each in chosen if before[each] != after[each]} == {family}


def made_in(tree: ast.AST) -> set[str]:
    """The names of classes and functions that a module calls."""
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_every_helper_is_known_by_the_class_that_it_is_of() -> None:
    package = Path(code.__file__).parent.parent
    tree, of_experts = (
        ast.parse((package / f"{name}.py").read_text(encoding="utf-8")) for name in ("helpers", "experts")
    )
    imported = {
        (str(node.module), name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.name in made_in(tree)
    }
    own = {node.name for node in ast.walk(of_experts) if isinstance(node, ast.ClassDef)} & made_in(of_experts)
    assert imported | {("mishformer_lens.experts", name) for name in own} == set(code.HELPERS.values())
    text = ast.unparse(tree) + ast.unparse(of_experts)
    assert all(f"'{name}'" in text for name in code.HELPERS)


def test_a_record_of_before_there_were_tiers_is_of_the_deep_one(tmp_path: Path) -> None:
    from mishformer_lens.compat.outcomes import _checksum

    path = write_record(make_record(), tmp_path)
    value = json.loads(path.read_text())
    value.pop("checksum")
    for run in value["runs"]:
        assert run.pop("tier") == "deep"
    path.write_text(json.dumps(value | {"checksum": _checksum(value)}))
    assert {run.tier for run in read_record(path).runs} == {"deep"}


def test_a_record_of_other_edits_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = make_record().family("gpt2")
    variants = FAMILIES["gpt2"].variants
    own = FAMILIES["gpt2"].variant(outcome.variant)
    assert not outcome.is_stale

    def replace_own(variant: Variant) -> bool:
        changed = tuple(variant if each is own else each for each in variants)
        monkeypatch.setitem(vars(FAMILIES["gpt2"]), "variants", changed)
        return outcome.is_stale

    member, edits = next(iter(own.edits.items()))
    assert replace_own(dataclasses.replace(own, edits={**own.edits, member: edits[:-1]}))
    assert replace_own(dataclasses.replace(own, attention=("eager",)))
    assert not replace_own(own)
    monkeypatch.setitem(vars(FAMILIES["gpt2"]), "variants", (own,))
    assert not outcome.is_stale
