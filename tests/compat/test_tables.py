"""Tables say what the outcomes say, byte for byte, and `compat check` finds where they do not."""

import json
from pathlib import Path

import pytest

from mishformer_lens.compat.outcomes import STAND_IN, Counts, write_record
from mishformer_lens.compat.tables import FILES, as_markdown, build_table
from mishformer_lens.errors import OutcomeError
from tests.cli.conftest import Command, command  # noqa: F401 - a fixture
from tests.compat.making_records import make_folder, make_record, make_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make_folder(tmp_path / "compat")
    write_record(make_record(), made / "outcomes")
    write_record(make_record("4.45.2", code="0" * 16), made / "outcomes")
    write_record(
        make_record("5.9.0", "cuda", runs=(make_run("gpt2", "flash_attention_2", Counts(1)),)), made / "outcomes"
    )
    return made


def test_every_cell_of_the_grid_has_its_mark(folder: Path) -> None:
    table = build_table(folder)
    assert [release.release for release in table.releases] == ["5.10.4", "5.9.0", "4.45.2"]
    assert len(table.cells) == 2 * 3 * 2 * 4
    marks = {
        (cell.release, cell.family, cell.attention): (cell.mark, cell.stale)
        for cell in table.cells
        if cell.device == "cpu"
    }
    assert marks["5.9.0", "gpt2", "eager"] == ("passed", False)
    assert marks["5.9.0", "gpt2", "sdpa"] == ("failed", False)
    assert marks["5.9.0", "gpt_neox", "eager"] == ("xfailed", False)
    assert marks["5.9.0", "gpt_neox", "sdpa"] == ("not run", False)
    assert marks["5.9.0", "gpt2", "flex_attention"] == (None, False)
    assert marks["5.10.4", "gpt2", "eager"] == ("not run", False)
    assert marks["4.45.2", "gpt2", "eager"] == ("passed", True)
    cuda = {
        (cell.release, cell.attention): cell.mark
        for cell in table.cells
        if cell.device == "cuda" and cell.family == "gpt2"
    }
    assert cuda["5.9.0", "flash_attention_2"] == "passed"
    assert cuda["5.9.0", "eager"] == "not run"


@pytest.mark.parametrize("failed", [0, 2])
def test_a_stand_in_never_counts_as_the_kernel(folder: Path, failed: int) -> None:
    runs = (make_run("gpt2", "flash_attention_2" + STAND_IN, Counts(passed=5, failed=failed)),)
    write_record(make_record(runs=runs), folder / "outcomes")
    (cell,) = (
        cell
        for cell in build_table(folder).cells
        if (cell.release, cell.family, cell.attention, cell.device) == ("5.9.0", "gpt2", "flash_attention_2", "cpu")
    )
    assert cell.mark == ("failed" if failed else "not run")
    assert "with a stand-in for it" in cell.reason


def test_markdown(folder: Path) -> None:
    text = as_markdown(build_table(folder))
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.split(" | ")
        for line in text.splitlines()
        if line.startswith("| ")
    }
    assert "On CPU: 2 of 3 releases recorded" in text
    cpu = [line for line in text.partition("## On CUDA")[0].splitlines() if line.startswith("| 5.9.0")]
    assert cpu == ["| 5.9.0 | 2.13.0 | 4.3.0 | ✅ | ❌ | ⬜ | · | ⚠️ | ⬜ | ⬜ | ⬜ |"]
    assert rows["4.45.2"][1:3] == ["2.13.0", "2.15.4"]
    assert "- gpt_neox, eager, cpu, in 4.45.2, 5.9.0: the kernel has no such dtype" in text
    assert "- gpt2, flex_attention, in 4.45.2, 5.9.0, 5.10.4: " in text
    assert "✅🕓" in text


def test_json_for_programs(folder: Path) -> None:
    data = json.loads(FILES["compatibility.json"](build_table(folder)))
    cell = next(cell for cell in data["cells"] if cell["mark"] == "failed" and cell["release"] == "5.9.0")
    assert (cell["family"], cell["attention"], cell["device"], cell["variant"]) == ("gpt2", "sdpa", "cpu", "v5_4")
    assert cell["runs"][0]["counts"] == {"passed": 2, "failed": 1, "xfailed": 0, "not_run": 0}
    result = data["results"][cell["runs"][0]["result"]]
    assert result == {
        "features": {"idle: forward": "failed"},
        "hook_points": {"hook_embed": "failed", "attn.hook_z": "failed"},
    }
    record = next(record for record in data["records"] if record["release"] == "5.9.0")
    assert record["command"] == "nox -s \"test-3.11(transformers='5.9.')\""


def test_the_files_are_made_the_same_byte_for_byte(folder: Path, command: Command) -> None:  # noqa: F811
    assert command("compat", "table", "--write", "--folder", str(folder)).code == 0
    first = {name: (folder / name).read_bytes() for name in FILES}
    assert command("compat", "table", "--write", "--folder", str(folder)).code == 0
    assert {name: (folder / name).read_bytes() for name in FILES} == first
    assert command("compat", "check", "--folder", str(folder)).code == 0
    for kind, name in (("md", "README.md"), ("html", "index.html"), ("json", "compatibility.json")):
        shown = command("compat", "table", "--format", kind, "--folder", str(folder)).out
        assert shown == first[name].decode()
    assert command("compat", "table", "--json", "--folder", str(folder)).out == first["compatibility.json"].decode()


def test_check_names_what_was_changed(folder: Path, command: Command) -> None:  # noqa: F811
    command("compat", "table", "--write", "--folder", str(folder))
    # A record that was changed by hand.
    path = folder / "outcomes" / "5.9.0-cpu.json"
    recorded = path.read_text()
    path.write_text(recorded.replace('"failed": 1', '"failed": 0', 1))
    finished = command("compat", "check", "--folder", str(folder))
    assert (finished.code, "transformers 5.9.0 on cpu" in finished.err) == (2, True)
    # A record that was made anew, with the tables left as they were.
    write_record(make_record(runs=(make_run("gpt2", "sdpa", Counts(passed=3)),)), folder / "outcomes")
    finished = command("compat", "check", "--folder", str(folder))
    assert finished.code == 1
    assert "transformers 5.9.0, gpt2, sdpa, cpu" in finished.out
    assert "transformers 4.45.2" not in finished.out
    path.write_text(recorded)
    assert command("compat", "check", "--folder", str(folder)).code == 0
    # A table that was changed by hand.
    readme = (folder / "README.md").read_text()
    (folder / "README.md").write_text(readme.replace("❌", "✅"))
    finished = command("compat", "check", "--folder", str(folder), "--json")
    assert (finished.code, finished.json["stale_files"]) == (1, {"README.md": []})
    assert "transformers 4.45.2, gpt2, eager, cpu" in finished.json["stale_cells"]
    (folder / "README.md").unlink()
    assert command("compat", "check", "--folder", str(folder)).code == 1


def test_what_gives_no_table(folder: Path, command: Command, tmp_path: Path) -> None:  # noqa: F811
    finished = command("compat", "table", "--folder", str(tmp_path))
    assert (finished.code, "run this in a checkout" in finished.err) == (2, True)
    write_record(make_record("5.8.0"), folder / "outcomes")
    with pytest.raises(OutcomeError, match=r"not in the grid: 5\.8\.0"):
        build_table(folder)
