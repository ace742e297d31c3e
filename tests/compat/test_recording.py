"""The suite's own plugin: expected failures with causes, and a record of what ran."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mishformer_lens.compat.outcomes import read_record
from mishformer_lens.patchers.installed import installed_release
from tests.outcome_plugin import EXPECTED_FAILURES, read_expected_failures

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest
from types import SimpleNamespace

CASE = SimpleNamespace(family="gpt2", attention="sdpa", dtype="torch.bfloat16")

@pytest.mark.parametrize("hook_point", ["hook_embed", "attn.hook_z"])
@pytest.mark.parametrize("case", [CASE], ids=["case"])
def test_hook_point(case, hook_point):
    assert hook_point == "hook_embed"

@pytest.mark.parametrize(("case", "scenario"), [pytest.param(CASE, 1, id="left padding-namespace")])
def test_idle(case, scenario):
    pass

FLASH = SimpleNamespace(family="gpt2", attention="flash_attention_2", dtype="torch.float32")

@pytest.mark.parametrize("case", [FLASH], ids=["flash"])
def test_with_a_stand_in(case):
    pass

@pytest.mark.gpu
@pytest.mark.parametrize("case", [FLASH], ids=["flash"])
def test_with_the_kernel(case):
    pass

@pytest.mark.parametrize("kind", ["gpt_neox_sequential"])
def test_names(kind):
    pytest.skip("nothing to do")

def test_of_no_family():
    pass
"""


def run_suite(
    tmp_path: Path, *options: str, expected: str = "", tests: str = TESTS
) -> "subprocess.CompletedProcess[str]":
    folder = tmp_path / "conformance"
    folder.mkdir(exist_ok=True)
    (folder / "test_it.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "expected.toml").write_text(expected)
    command = [sys.executable, "-m", "pytest", "-p", "tests.outcome_plugin", "-q", "--rootdir", str(tmp_path)]
    command += ["-c", str(tmp_path / "pytest.ini"), "--expected-failures", str(tmp_path / "expected.toml")]
    return subprocess.run(
        [*command, *options, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def expectation(release: str = ">=4", test: str = "*test_hook_point[[]*hook_z*") -> str:
    return f"[[expected]]\ntest = {json.dumps(test)}\nreleases = {json.dumps(release)}\ncause = 'seen, and known'\n"


@pytest.fixture(autouse=True)
def needs_transformers() -> None:
    pytest.importorskip("transformers", reason="a record is of an installed release", exc_type=ImportError)


@pytest.mark.parametrize("options", [[], ["--numprocesses=2"]], ids=["one process", "two processes"])
def test_a_record_says_what_ran(tmp_path: Path, options: list[str]) -> None:
    finished = run_suite(tmp_path, "--outcomes", str(tmp_path / "outcomes"), *options, expected=expectation())
    assert finished.returncode == 0, finished.stdout
    record = read_record(tmp_path / "outcomes" / f"{installed_release()}-cpu.json")
    assert record.packages["transformers"] == installed_release()
    assert record.suite.passed == 5
    assert (record.suite.xfailed, record.suite.not_run, record.suite.failed) == (1, 1, 0)
    runs = {(run.family, run.attention, run.dtype): run for run in record.runs}
    sdpa = runs["gpt2", "sdpa", "bfloat16"]
    assert sdpa.hook_points == {"hook_embed": "passed", "attn.hook_z": "xfailed"}
    assert {name: counts.mark for name, counts in sdpa.features.items()}["hook point"] == "xfailed"
    assert any(name.startswith("idle: left padding") for name in sdpa.features)
    assert sdpa.reasons == ("seen, and known",)
    assert list(runs["gpt2", "flash_attention_2 (stand-in)", "float32"].features) == ["with a stand in"]
    assert list(runs["gpt2", "flash_attention_2", "float32"].features) == ["with the kernel"]
    neox = runs["gpt_neox", "eager", "float32"]
    assert (neox.counts.not_run, neox.reasons) == (1, ("nothing to do",))
    assert [family.family for family in record.families] == ["gpt2", "gpt_neox"]
    assert not any(family.is_stale for family in record.families)
    lock = ROOT / record.lock
    assert lock.is_file()
    assert f"transformers=={installed_release()}" in lock.read_text()
    assert record.command.startswith("nox -s ")


def test_a_record_tells_the_tests_of_every_family_from_those_of_one(tmp_path: Path) -> None:
    family = TESTS.replace('family="gpt2", attention="sdpa"', 'family="llama", attention="sdpa"')
    (tmp_path / "conformance" / "families").mkdir(parents=True)
    (tmp_path / "conformance" / "families" / "test_family.py").write_text(family)
    finished = run_suite(tmp_path, "--outcomes", str(tmp_path / "outcomes"), expected=expectation())
    assert finished.returncode == 0, finished.stdout
    record = read_record(tmp_path / "outcomes" / f"{installed_release()}-cpu.json")
    tiers = {(run.family, run.attention): run.tier for run in record.runs}
    assert tiers["llama", "sdpa"] == "family"
    assert tiers["gpt2", "sdpa"] == tiers["gpt2", "flash_attention_2"] == "deep"


def test_a_failure_is_recorded_as_one(tmp_path: Path) -> None:
    finished = run_suite(tmp_path, "--outcomes", str(tmp_path / "outcomes"))
    assert finished.returncode == 1
    record = read_record(tmp_path / "outcomes" / f"{installed_release()}-cpu.json")
    (run,) = (run for run in record.runs if run.attention == "sdpa")
    assert run.hook_points["attn.hook_z"] == "failed"


def test_expectations_are_strict(tmp_path: Path) -> None:
    finished = run_suite(tmp_path, expected=expectation(test="*hook_embed*"))
    assert finished.returncode == 1
    assert "XPASS(strict)" in finished.stdout


def test_expectations_of_other_releases_do_not_count(tmp_path: Path) -> None:
    assert run_suite(tmp_path, expected=expectation("<4")).returncode == 1
    assert run_suite(tmp_path, expected=expectation()).returncode == 0


@pytest.mark.parametrize(
    "expected",
    [
        "[[expected]]\ntest = 'x'\nreleases = '>4'\n",
        expectation().replace("seen, and known", " "),
        expectation() + "since = 'ever'\n",
    ],
)
def test_an_expectation_without_a_cause_is_an_error(tmp_path: Path, expected: str) -> None:
    finished = run_suite(tmp_path, expected=expected)
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert "has a test, releases and a cause" in finished.stderr


def test_a_run_that_breaks_off_leaves_no_record(tmp_path: Path) -> None:
    broken = "def test_it():\n    raise KeyboardInterrupt\n"
    finished = run_suite(tmp_path, "--outcomes", str(tmp_path / "outcomes"), tests=broken)
    assert finished.returncode == pytest.ExitCode.INTERRUPTED
    assert "no outcome was recorded" in finished.stdout
    assert not (tmp_path / "outcomes").exists()


def test_the_committed_expectations_can_be_read() -> None:
    assert all(entry.cause for entry in read_expected_failures(EXPECTED_FAILURES))
