"""HuggingFace's own tests: what is made of an sdist, and what counts as a difference."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools.index import Index, serving
from tools.upstream.compare import (
    ComparisonError,
    Declared,
    Result,
    Run,
    compare,
    read_declared,
    read_run,
    report,
)
from tools.upstream.sdist import UpstreamError, fetch_sdist, unpack_tests, write_cases

COMMON = """
from .generation.test_utils import GenerationTesterMixin, helper
from .test_helpers import useful

class ModelTesterMixin:
    pass
"""


def sdist(**files: str) -> bytes:
    """An sdist of transformers 9.9.0 with these files in its folder of tests."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in {"../setup.py": "", **files}.items():
            member = tarfile.TarInfo(f"transformers-9.9.0/tests/{name}".replace("tests/../", ""))
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with serving() as served:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{served.url}/simple/")
        yield served


def test_the_sdist_is_fetched_once(index: Index, tmp_path: Path) -> None:
    index.add_sdist("transformers", "9.9.0", b"an archive")
    assert fetch_sdist("9.9.0", tmp_path).read_bytes() == b"an archive"
    index.projects.clear()
    assert fetch_sdist("9.9.0", tmp_path).read_bytes() == b"an archive"


def test_a_release_without_an_sdist_is_an_error(index: Index, tmp_path: Path) -> None:
    index.add("transformers", "9.9.0")
    with pytest.raises(UpstreamError, match=r"no sdist of transformers 9\.9\.0"):
        fetch_sdist("9.9.0", tmp_path)


def test_another_file_than_the_index_says_is_an_error(index: Index, tmp_path: Path) -> None:
    index.add_sdist("transformers", "9.9.0", b"an archive", sha256="0" * 64)
    with pytest.raises(UpstreamError, match="cannot be had"):
        fetch_sdist("9.9.0", tmp_path)
    assert not list(tmp_path.iterdir())


def test_cases_and_stand_ins_are_made(tmp_path: Path) -> None:
    archive = tmp_path / "made-up.tar.gz"
    archive.write_bytes(sdist(**{"test_modeling_common.py": COMMON, "test_helpers.py": "useful = 1"}))
    unpack_tests(archive, tmp_path)
    assert write_cases(tmp_path, ["gpt2"]) == ["generation.test_utils"]
    made = {str(path.relative_to(tmp_path)) for path in (tmp_path / "tests").rglob("*.py")}
    assert made == {
        "tests/__init__.py",
        "tests/test_modeling_common.py",
        "tests/test_helpers.py",
        "tests/generation/__init__.py",
        "tests/generation/test_utils.py",
        "tests/models/__init__.py",
        "tests/models/gpt2/__init__.py",
        "tests/models/gpt2/test_modeling_gpt2.py",
    }
    case = (tmp_path / "tests/models/gpt2/test_modeling_gpt2.py").read_text()
    assert 'class EagerTest(eager_glue("gpt2"), ModelTesterMixin, GenerationTesterMixin, unittest.TestCase)' in case
    stand_in = (tmp_path / "tests/generation/test_utils.py").read_text()
    assert "class GenerationTesterMixin" in stand_in
    assert "class helper" in stand_in


def test_stand_ins_of_an_earlier_run_are_no_part_of_the_release(tmp_path: Path) -> None:
    archive = tmp_path / "made-up.tar.gz"
    archive.write_bytes(sdist(**{"test_modeling_common.py": COMMON, "test_helpers.py": ""}))
    for _ in range(2):
        unpack_tests(archive, tmp_path)
        assert write_cases(tmp_path, ["gpt2"]) == ["generation.test_utils"]


def test_an_sdist_without_tests_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "made-up.tar.gz"
    archive.write_bytes(sdist(**{"test_helpers.py": ""}))
    with pytest.raises(UpstreamError, match=r"has no tests/test_modeling_common\.py"):
        unpack_tests(archive, tmp_path)


def test_nothing_but_files_of_tests_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "made-up.tar.gz"
    archive.write_bytes(sdist(**{"test_modeling_common.py": "", "../../../outside.py": "", "deep/test_x.py": ""}))
    unpack_tests(archive, tmp_path)
    assert {path.name for path in tmp_path.rglob("*.py")} == {"test_modeling_common.py"}


FILE = "tests/models/gpt2/test_modeling_gpt2.py"
A, B = f"{FILE}::EagerTest::test_a", f"{FILE}::EagerTest::test_b"


def plain_run() -> Run:
    return {A: Result("passed", "", ("GPT2Model 1", "GPT2Model 2")), B: Result("skipped", "slow")}


def hooked_runs() -> dict[str, Run]:
    return {
        "idle": {A: replace(plain_run()[A], hooked=1), B: plain_run()[B]},
        "observed": {A: replace(plain_run()[A], hooked=1, activations={"hook_embed": 2}), B: plain_run()[B]},
    }


def outcome(hooked: dict[str, Run], declared: list[Declared], again: Run | None = None) -> tuple[str, bool]:
    lines, fine = report("9.9.0", compare(plain_run(), again or plain_run(), hooked), declared)
    return "\n".join(lines), fine


def row(name: str, number: int) -> str:
    return f"{name:<38}{number:>9}"


def test_runs_that_are_the_same() -> None:
    text, fine = outcome(hooked_runs(), [])
    assert fine
    assert row("observed: lost", 0) in text
    assert row("digests compared", 2) in text


def test_a_lost_test_is_found() -> None:
    hooked = hooked_runs()
    hooked["idle"][A] = Result("failed", "TypeError: no", hooked=1)
    text, fine = outcome(hooked, [])
    assert not fine
    assert row("idle: lost", 1) in text
    assert f"idle, outcome: {A}: passed, then failed: TypeError: no\n    NOT DECLARED" in text


def test_another_outcome_is_found_where_nothing_is_lost() -> None:
    hooked = hooked_runs()
    hooked["observed"][B] = Result("passed")
    text, fine = outcome(hooked, [])
    assert not fine
    assert row("observed: another outcome", 1) in text


@pytest.mark.parametrize("outputs", [("GPT2Model 1", "GPT2Model 3"), ("GPT2Model 1",)])
def test_another_output_is_found(outputs: tuple[str, ...]) -> None:
    hooked = hooked_runs()
    hooked["observed"][A] = replace(hooked["observed"][A], outputs=outputs)
    text, fine = outcome(hooked, [])
    assert not fine
    assert f"observed, output: {A}: " in text


def test_what_is_declared_is_accepted() -> None:
    hooked = hooked_runs()
    hooked["idle"][A] = Result("failed", "TypeError: no", ("GPT2Model 1",), hooked=1)
    text, fine = outcome(hooked, [Declared("*::test_a", ">=9.9", "a known cause", "idle")])
    assert fine
    assert "declared: a known cause" in text


def test_a_declared_loss_does_not_hide_another_output() -> None:
    hooked = hooked_runs()
    hooked["idle"][A] = Result("failed", "TypeError: no", ("GPT2Model 9",), hooked=1)
    loss = Declared("*::test_a", ">=9.9", "a known cause", "idle")
    text, fine = outcome(hooked, [loss])
    assert not fine
    assert f"idle, output: {A}: output 1 of 1 is GPT2Model 1, then GPT2Model 9\n    NOT DECLARED" in text
    assert outcome(hooked, [loss, replace(loss, kind="output")])[1]


def test_what_is_declared_for_another_run_is_not_accepted() -> None:
    hooked = hooked_runs()
    hooked["idle"][A] = Result("failed", "TypeError: no", hooked=1)
    assert not outcome(hooked, [Declared("*::test_a", ">=9.9", "a known cause", "observed")])[1]


def test_what_is_declared_and_does_not_occur_is_reported() -> None:
    text, fine = outcome(hooked_runs(), [Declared("*::test_a", ">=9.9", "a known cause")])
    assert not fine
    assert "DECLARED, BUT DID NOT OCCUR: *::test_a" in text


def test_a_test_that_is_not_repeatable_is_reported_and_not_compared() -> None:
    again = plain_run()
    again[A] = replace(again[A], outputs=("GPT2Model 1", "GPT2Model 7"))
    hooked = hooked_runs()
    hooked["idle"][A] = replace(hooked["idle"][A], outputs=("GPT2Model 1", "GPT2Model 8"))
    text, fine = outcome(hooked, [], again)
    assert fine
    assert f"not repeatable on plain models: {A}" in text
    assert row("digests compared", 0) in text


def test_a_hook_point_that_never_fires_is_reported() -> None:
    hooked = hooked_runs()
    hooked["observed"][A] = replace(hooked["observed"][A], activations={"hook_embed": 2, "hook_z": 0})
    text, fine = outcome(hooked, [])
    assert not fine
    assert f"NEVER FIRED: {FILE}: hook_z" in text


def test_runs_that_prove_nothing_are_refused() -> None:
    silent = hooked_runs()
    silent["observed"][A] = replace(silent["observed"][A], activations={"hook_embed": 0})
    with pytest.raises(ComparisonError, match="no hook fired"):
        outcome(silent, [])
    unhooked = hooked_runs()
    unhooked["idle"] = plain_run()
    with pytest.raises(ComparisonError, match="idle: no model was hooked"):
        outcome(unhooked, [])
    shorter = hooked_runs()
    del shorter["idle"][B]
    with pytest.raises(ComparisonError, match="idle: other tests were run"):
        outcome(shorter, [])
    nothing = {A: Result("skipped"), B: Result("skipped")}
    with pytest.raises(ComparisonError, match="no model gave any output"):
        compare(nothing, nothing, {"idle": nothing, "observed": nothing})


def test_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "idle.json"
    with pytest.raises(ComparisonError, match="idle: pytest recorded nothing"):
        read_run(path)
    path.write_text("{}")
    with pytest.raises(ComparisonError, match="idle: no test was run"):
        read_run(path)
    path.write_text(json.dumps({A: {"outcome": "passed", "outputs": ["GPT2Model 1"], "hooked": 1}}))
    assert read_run(path) == {A: Result("passed", "", ("GPT2Model 1",), {}, 1)}


def test_declarations_are_for_releases_and_have_a_cause(tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    entry = '[[expected]]\ntest = "*::test_a"\nreleases = ">=5.4,<5.8"\n'
    path.write_text(f'{entry}cause = "known"\n')
    assert read_declared(path, "5.4.0") == [Declared("*::test_a", ">=5.4,<5.8", "known")]
    assert read_declared(path, "5.8.0") == []
    for wrong in (
        "",
        'cause = " "',
        'cause = "known"\nkind = "loss"',
        'cause = "known"\nrun = "plain"',
        'caus = "known"',
    ):
        path.write_text(f"{entry}{wrong}\n")
        with pytest.raises(ComparisonError, match="an entry has a test, releases and a cause"):
            read_declared(path, "5.4.0")
