"""Tables say what the outcomes say, byte for byte, and `compat check` finds where they do not."""

import dataclasses
import json
from pathlib import Path

import pytest
from packaging.version import Version

from mishformer_lens.compat.outcomes import STAND_IN, Counts, Tier, write_record
from mishformer_lens.compat.tables import FILES, as_data, as_markdown, build_table
from mishformer_lens.errors import OutcomeError
from mishformer_lens.patchers import FAMILIES
from tests.cli.conftest import Command, command  # noqa: F401 - a fixture
from tests.compat.making_records import make_folder, make_record, make_run

# What the lines of the first tables begin with: their heads, and releases.
HEADS = ("| t", "| 4", "| 5")


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
    assert len(table.cells) == 2 * 3 * len(FAMILIES) * 4
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
    assert "On CPU: 2 of 3 releases recorded" in text
    head, *rows = [
        line.strip("| ").split(" | ") for line in text.partition("## On CUDA")[0].splitlines() if line[:3] in HEADS
    ]
    assert head == ["transformers", "torch", "transformer-lens", *FAMILIES]
    marks = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    # The worst of a family's implementations that ran.
    assert (marks["5.9.0"]["gpt2"], marks["5.9.0"]["gpt_neox"]) == ("❌", "⚠️")
    assert (marks["4.45.2"]["gpt2"], marks["4.45.2"]["transformer-lens"]) == ("❌🕓", "2.15.4")
    assert marks["5.10.4"]["gpt2"] == "⬜"
    youngest = max(FAMILIES.values(), key=lambda family: Version(family.first_release))
    assert marks["4.45.2"][youngest.name] == "·"


def section(text: str, family: str) -> list[str]:
    """The lines of a family's own section."""
    return text.partition(f"\n### {family}\n")[2].partition("\n### ")[0].splitlines()


def test_a_family_s_section_has_its_implementations_and_the_reasons(folder: Path) -> None:
    text = as_markdown(build_table(folder))
    gpt2 = section(text, "gpt2")
    assert "| 5.9.0 | ✅ | ❌ | ⬜ | · | ⬜ | ⬜ | ✅ | · |" in gpt2
    assert "| 4.45.2 | ✅🕓 | ❌🕓 | ⬜ | · | ⬜ | ⬜ | ⬜ | · |" in gpt2
    assert [line for line in gpt2 if line.startswith("- flex_attention is not offered in 4.45.2 to 5.10.4: ")]
    gpt_neox = section(text, "gpt_neox")
    assert "- eager on cpu fails as expected in 4.45.2 to 5.9.0: the kernel has no such dtype" in gpt_neox
    youngest = max(FAMILIES.values(), key=lambda family: Version(family.first_release))
    own = section(text, youngest.name)
    assert f"From {youngest.first_release} on." in own
    assert not [line for line in own if line.startswith("| 4.45.2")]


@pytest.mark.parametrize(
    ("tiers", "shown"), [(("family",), "✅ᶠ"), (("deep",), "✅"), (("family", "deep"), "✅")], ids=str
)
def test_a_mark_tells_which_tests_ran(folder: Path, tiers: tuple[Tier, ...], shown: str) -> None:
    runs = [make_run("gpt2", name, Counts(1)) for name in ("eager", "sdpa")]
    own = tuple(dataclasses.replace(run, tier=tier) for run, tier in zip(runs, tiers, strict=False))
    write_record(make_record(runs=own), folder / "outcomes")
    table = build_table(folder)
    (row,) = [line for line in as_markdown(table).splitlines() if line.startswith("| 5.9.0 | 2.13.0")][:1]
    assert row.strip("| ").split(" | ")[3 + list(FAMILIES).index("gpt2")] == shown
    cells = [cell for cell in as_data(table)["cells"] if (cell["release"], cell["device"]) == ("5.9.0", "cpu")]
    found = [cell["tier"] for cell in cells if cell["family"] == "gpt2" and cell["mark"] == "passed"]
    assert found == list(tiers)


def test_a_record_of_a_variant_that_is_gone_is_stale(folder: Path) -> None:
    record = make_record()
    families = tuple(dataclasses.replace(family, variant="v1_0") for family in record.families)
    write_record(dataclasses.replace(record, families=families), folder / "outcomes")
    cells = [cell for cell in build_table(folder).cells if cell.record is not None and cell.release == "5.9.0"]
    assert cells
    assert all(cell.stale for cell in cells if cell.device == "cpu")


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
