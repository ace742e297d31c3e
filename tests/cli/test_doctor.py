"""``doctor``: what is installed, what can be hooked, what is broken and how to mend it."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mishformer_lens
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.installed import UNKNOWN_RELEASE, Source, installed_release
from tests.cli.conftest import Command


def test_says_what_is_installed_and_selected(command: Command) -> None:
    report = command("doctor", "--json").json
    assert report["packages"]["transformers"] == installed_release()
    assert report["packages"]["mishformer-lens"] == mishformer_lens.__version__
    assert [family["family"] for family in report["families"]] == list(FAMILIES)
    for family in report["families"]:
        variant = mishformer_lens.variants[family["family"]]
        if variant is None:
            assert (family["variant"], family["status"], family["attention"]) == (None, "absent", [])
            assert FAMILIES[family["family"]].first_release in family["reason"]
            continue
        assert (family["variant"], family["status"]) == (variant.name, "verified")
        assert installed_release() in family["reason"] or " to " in family["reason"]
        assert family["attention"] == list(variant.attention)
        assert family["unsupported"] == dict(variant.unsupported)


def test_a_sound_environment_is_exit_code_0(command: Command) -> None:
    finished = command("doctor")
    assert (finished.code, "problem" in finished.out) == (0, False)
    assert installed_release() in finished.out


class Installed:
    """What the metadata says is installed, changed for a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.versions: dict[str, str | None] = {}
        real = importlib.metadata.version

        def version(package: str) -> str:
            found = self.versions.get(package, "real")
            if found is None:
                raise importlib.metadata.PackageNotFoundError(package)
            return real(package) if found == "real" else found

        monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(monkeypatch)


@pytest.mark.parametrize("release", ["2.16.0", "2.17.0", "2.18.0"])
def test_releases_of_transformer_lens_that_cannot_be_imported(
    command: Command, installed: Installed, release: str
) -> None:
    installed.versions["transformer-lens"] = release
    finished = command("doctor", "--json")
    assert finished.code == 1
    problem = finished.json["problems"][0]
    assert problem["found"].startswith(f"transformer-lens {release}: ")
    assert problem["command"].startswith("pip install ")
    table = command("doctor").out
    assert "mend it with: pip install" in table


def test_a_requirement_that_is_not_met(command: Command, installed: Installed) -> None:
    installed.versions["torch"] = "1.0"
    finished = command("doctor", "--json")
    assert finished.code == 1
    assert any("needs torch" in problem["found"] and "1.0" in problem["found"] for problem in finished.json["problems"])


def test_no_transformers(command: Command, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.versions["transformers"] = None
    monkeypatch.setitem(sys.modules, "transformers", None)
    finished = command("doctor", "--json")
    assert finished.code == 1
    assert {family["status"] for family in finished.json["families"]} == {"unusable"}
    assert "not installed" in finished.json["families"][0]["reason"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (None, "there is no metadata of it"),
        ("", f"its metadata says {UNKNOWN_RELEASE}"),
        ("4.40.0", "its metadata says 4.40.0"),
        ("1-acme_patched-7", "its metadata says 1-acme_patched-7"),
    ],
)
def test_metadata_that_are_missing_or_of_another_installation_are_a_problem_and_the_source_is_verified(
    command: Command, installed: Installed, number: str | None, said: str
) -> None:
    installed.versions["transformers"] = number
    finished = command("doctor", "--json")
    assert finished.code == 1
    assert finished.json["packages"]["transformers"] == installed_release()
    assert {family["status"] for family in finished.json["families"]} == {"verified"}
    assert f"transformers says that it is {installed_release()}, and {said}" in finished.json["problems"][0]["found"]
    assert finished.json["problems"][0]["command"].endswith(f"transformers=={installed_release()}")


@pytest.mark.parametrize("package", ["torch", "transformer-lens"])
@pytest.mark.parametrize("number", ["", "unknown", "2.0-acme_patched-7"])
def test_numbers_that_cannot_be_read_are_a_problem(
    command: Command, installed: Installed, package: str, number: str
) -> None:
    installed.versions[package] = number
    finished = command("doctor", "--json")
    assert finished.code == 1
    found = [problem["found"] for problem in finished.json["problems"]]
    assert f"the version of {package} is {number or UNKNOWN_RELEASE}, which packaging tools cannot read" in found


@pytest.mark.parametrize("modeling", [None, b"", b"class GPT2Model(:", b"\xff\xfe", b"a = 1\0", b"# coding: no-such\n"])
@pytest.mark.parametrize("package", [b"", b"__version__ = 'main'", b"\xff\xfe\0"])
@pytest.mark.parametrize("metadata", [None, b"", b"Name: transformers\n", b"Version: \xff\n", b"Version: main\n"])
def test_whatever_stands_there_is_reported(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    modeling: bytes | None,
    package: bytes,
    metadata: bytes | None,
) -> None:
    for family in FAMILIES.values():
        path = tmp_path / family.source_path
        path.parent.mkdir(parents=True)
        if modeling is not None:
            path.write_bytes(modeling)
    (tmp_path / "transformers" / "__init__.py").write_bytes(package)
    (tmp_path / "transformers-1.0.dist-info").mkdir()
    if metadata is not None:
        (tmp_path / "transformers-1.0.dist-info" / "METADATA").write_bytes(metadata)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    finished = command("doctor", "--json")
    assert finished.code == 1
    assert {family["status"] for family in finished.json["families"]} <= {"unusable", "fails"}
    assert all(family["reason"] for family in finished.json["families"])


def test_a_changed_source_is_told_from_a_verified_one(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sources: dict[str, str]
) -> None:
    def changed(edit: tuple[str, str]) -> None:
        for path, text in sources.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text.replace(*edit) if path == FAMILIES["gpt2"].source_path else text)
        monkeypatch.setattr(
            "mishformer_lens.compat.doctor.installed_source",
            lambda family: Source("changed", (tmp_path / family.source_path).read_text()),
        )

    changed(("self.dropout(", "(lambda x: x)("))
    finished = command("doctor", "--json")
    assert finished.code == 3
    gpt2 = next(family for family in finished.json["families"] if family["family"] == "gpt2")
    assert gpt2["status"] == "applies"
    assert "GPT2MLP" in gpt2["reason"]
    changed(("self.act(", "self.activation("))
    finished = command("doctor", "--json")
    statuses = {family["family"]: family["status"] for family in finished.json["families"]}
    assert (finished.code, statuses["gpt2"]) == (1, "fails")


@pytest.mark.parametrize("arguments", [["doctor"], ["compat", "scan", "--source", "installed"], ["--help"]])
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    heavy = ["torch", "transformers", "transformer_lens", "numpy", "requests", "pypi_simple", "pydantic"]
    code = (
        "import sys, json\n"
        "from mishformer_lens.cli import main\n"
        f"sys.argv = ['mishformer-lens', *{arguments!r}]\n"
        "try:\n    main()\n"
        f"except SystemExit:\n    print(json.dumps([name for name in {heavy!r} if name in sys.modules]))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout.splitlines()[-1]) == []
