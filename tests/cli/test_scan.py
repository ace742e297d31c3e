"""``compat scan``: one row per release and family, and exit codes that a script can use."""

import json
from pathlib import Path

import pytest

from mishformer_lens.compat.cache import SourceCache
from mishformer_lens.compat.sources import Registry, read_source
from mishformer_lens.errors import SourceError
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.releases import first_release_of
from tests.cli.conftest import Command, broken, youngest
from tests.compat import prototype
from tests.compat.fake_index import GPT2, FakeIndex, make_wheel


@pytest.mark.usefixtures("index")
def test_rows_have_the_declared_form(command: Command) -> None:
    finished = command("compat", "scan", "--json")
    assert [(row["release"], row["family"]) for row in finished.json] == [
        (release, family) for release in ("4.45.0", "5.0.0") for family in FAMILIES
    ]
    assert all(list(row) == ["release", "family", "variant", "status", "failures", "reason"] for row in finished.json)
    statuses = {(row["release"], row["family"]): row["status"] for row in finished.json}
    # Both have the sources of the installed release, so that these are known, whatever the number.
    assert all(status in ("verified", "absent") for key, status in statuses.items() if key != ("5.0.0", "gpt2"))
    assert statuses["4.45.0", "gpt2"] == statuses["4.45.0", "gpt_neox"] == statuses["5.0.0", "gpt_neox"] == "verified"
    (failing,) = (row for row in finished.json if row["status"] == "fails")
    assert (failing["release"], failing["family"]) == ("5.0.0", "gpt2")
    assert [failure["member"] for failure in failing["failures"]] == ["GPT2MLP.forward"]
    assert "self.activation(hidden_states)" in failing["failures"][0]["message"]
    assert finished.code == 1


def test_exit_codes(command: Command, index: FakeIndex, sources: dict[str, str]) -> None:
    assert command("compat", "scan", "--release", "4.45").code == 0
    assert command("compat", "scan", "--until", "4.48").code == 0
    assert command("compat", "scan", "--since", "5.0", "--family", "gpt_neox").code == 0
    assert command("compat", "scan", "--since", "5.0", "--family", "gpt2").code == 1
    # A statement that no edit touches: every anchor matches, but nobody verified this.
    index.add("5.1.0", {path: text.replace("self.dropout(", "(lambda x: x)(") for path, text in sources.items()})
    assert command("compat", "scan", "--release", "5.1.0", "--family", "gpt2", "--json").json[0]["status"] == "applies"
    assert command("compat", "scan", "--release", "5.1.0", "--family", "gpt2").code == 3


@pytest.mark.usefixtures("index")
def test_the_table_names_what_is_missing(command: Command) -> None:
    finished = command("compat", "scan")
    assert "GPT2MLP.forward" in finished.out
    assert f"{2 * len(FAMILIES)} sources: " in finished.out
    assert "1 fails" in finished.out
    assert "4.45.0 to 5.0.0" in finished.out
    assert "--release 5.0.0" in finished.out
    details = command("compat", "scan", "--release", "5.0.0").out
    assert "The nearest statements in GPT2MLP.forward are" in details


@pytest.mark.parametrize("kind", ["wheel", "folder", "installed"])
def test_other_sources(command: Command, sources: dict[str, str], tmp_path: Path, kind: str) -> None:
    place: str | Path = kind
    if kind == "wheel":
        place = tmp_path / "some.whl"
        place.write_bytes(make_wheel("5.99.0", broken(sources)))
    elif kind == "folder":
        place = tmp_path
        for path, text in {**broken(sources), "transformers/__init__.py": '__version__ = "5.99.0"\n'}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
    finished = command("compat", "scan", "--source", str(place), "--json")
    statuses = {row["family"]: row["status"] for row in finished.json if row["status"] != "absent"}
    assert {"gpt2", "gpt_neox"} <= statuses.keys()
    assert statuses.pop("gpt2") == ("verified" if kind == "installed" else "fails")
    missing = {family for family, status in statuses.items() if status == "fails"}
    # 5.99 lacks what the installed release lacks, and is too new for that.
    assert missing == (set() if kind == "installed" else {name for name in statuses if lacks(name, sources)})
    assert {status for family, status in statuses.items() if family not in missing} == {"verified"}
    assert finished.code == (0 if kind == "installed" else 1)


def lacks(family: str, sources: dict[str, str]) -> bool:
    return FAMILIES[family].source_path not in sources


def test_a_release_without_a_model_that_it_should_have_is_a_row(command: Command, index: FakeIndex) -> None:
    index.add("5.2.0", {})
    finished = command("compat", "scan", "--release", "5.2.0", "--json")
    rows = {row["family"]: row for row in finished.json}
    assert list(rows) == list(FAMILIES)
    for name in ("gpt2", "gpt_neox"):
        assert (rows[name]["status"], rows[name]["failures"][0]["member"]) == ("fails", "")
        assert "lacks this model" in rows[name]["failures"][0]["message"]
    assert command("compat", "scan", "--release", "5.2.0").code == 1


@pytest.mark.parametrize("source", [None, "class SomeAttention:\n    pass\n"], ids=["none", "of another form"])
def test_a_family_that_a_release_does_not_have_yet_is_no_failure(
    command: Command, index: FakeIndex, sources: dict[str, str], source: str | None
) -> None:
    family = youngest()
    path = family.source_path
    own = {GPT2: sources[GPT2]} if source is None else {GPT2: sources[GPT2], path: source}
    index.add("4.44.0", own)
    scan = ["compat", "scan", "--release", "4.44.0", "--family", "gpt2", "--family", family.name]
    finished = command(*scan, "--json")
    gpt2, other = finished.json
    assert finished.code == 0
    assert (gpt2["status"], gpt2["reason"]) == ("verified", "")
    begin = first_release_of(family)
    assert (other["status"], other["variant"], other["failures"]) == ("absent", "", [])
    assert f"older than {begin}" in other["reason"]
    assert f'pip install "transformers>={begin}"' in other["reason"]
    assert "2 sources: 1 verified, 1 absent" in command(*scan).out


def test_works_offline_once_the_sources_are_there(command: Command, index: FakeIndex) -> None:
    first = command("compat", "scan", "--json")
    asked = len(index.requests)
    assert command("compat", "scan", "--json", "--offline") == first
    assert len(index.requests) == asked


RUBBISH = {
    "half a wheel": (["--release", "5.3.0"], "5.3.0 is damaged"),
    "a zip bomb": (["--release", "5.4.0"], "would unpack to"),
    "a path": (["--release", "../../5.4.0"], "is no version number"),
    "no such release": (["--release", "5.77.0"], "there is no wheel of transformers 5.77.0"),
    "a withdrawn release": (["--release", "5.5.0"], "withdrawn"),
    "no Python": (["--release", "5.6.0"], "is not Python"),
    "no such place": (["--source", "/absent/place"], "there is nothing at"),
    "no such patches": (["--patches", "/absent/file.json"], "cannot be read"),
}


@pytest.mark.parametrize("case", RUBBISH)
@pytest.mark.parametrize("as_json", [True, False])
def test_rubbish_gives_one_line_and_leaves_the_cache(
    command: Command, index: FakeIndex, case: str, as_json: bool
) -> None:
    index.add("5.3.0", {GPT2: "x = 1\n"})
    index.wheels["5.3.0"] = index.wheels["5.3.0"][:80]
    index.add("5.4.0", {GPT2: bytes(64 * 2**20)})
    index.add("5.5.0", {})
    index.yanked["5.5.0"] = "by mistake"
    index.add("5.6.0", {GPT2: "class GPT2MLP(:\n"})
    command("compat", "scan", "--release", "4.45.0")
    texts = SourceCache().folder / "texts"
    before = {path.name: path.read_bytes() for path in texts.iterdir()}
    arguments, message = RUBBISH[case]
    finished = command("compat", "scan", *arguments, *(["--json"] if as_json else []))
    assert finished.code == 2
    assert message in finished.err
    assert finished.err.count("\n") == 1
    assert finished.err.startswith("mishformer-lens: ")
    if as_json:
        assert set(finished.json) == {"error", "message"}
    else:
        assert not finished.out
    after = {path.name: path.read_bytes() for path in texts.iterdir()}
    assert before.items() <= after.items()
    assert command("compat", "scan", "--release", "4.45.0", "--offline").code == 0


@pytest.mark.usefixtures("index")
def test_no_network_gives_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    finished = command("compat", "scan")
    assert finished.code == 2
    assert finished.err.count("\n") == 1
    assert "cannot be reached" in finished.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--family", "gpt_nox"],
        ["--source", "installed", "--release", "4.45.0"],
        ["--release", "4.45.0", "--since", "4.44"],
        ["--patches", "x.json", "--family", "gpt2"],
    ],
)
@pytest.mark.usefixtures("index")
def test_arguments_that_make_no_sense(command: Command, arguments: list[str]) -> None:
    finished = command("compat", "scan", *arguments)
    assert finished.code == 2
    assert "Error: " in finished.err
    if "gpt_nox" in arguments:
        assert "Did you mean" in finished.err
        assert "'gpt_neox'" in finished.err


def test_a_persons_own_patches(command: Command, index: FakeIndex, tmp_path: Path) -> None:
    path = "transformers/models/llama/modeling_llama.py"
    index.add("5.3.0", {path: "class Mlp:\n    def forward(self, x):\n        return self.down(x)\n"})
    index.add("5.4.0", {path: "class Mlp:\n    def forward(self, x):\n        return self.out(x)\n"})
    patches = tmp_path / "mine.json"
    patches.write_text(json.dumps({"Mlp": [["self.down(x)", "self.down(tap(x))"]]}))
    module = ["--module", "transformers.models.llama.modeling_llama"]
    finished = command("compat", "scan", "--patches", str(patches), *module, "--since", "5.3", "--json")
    assert [(row["release"], row["family"], row["variant"], row["status"]) for row in finished.json] == [
        ("5.3.0", "llama", "mine", "applies"),
        ("5.4.0", "llama", "mine", "fails"),
    ]
    assert finished.code == 1
    assert command("compat", "scan", "--patches", str(patches), *module, "--release", "5.3.0").code == 0
    patches.write_text(json.dumps({"Mlp": "self.down(x)"}))
    assert "JSON of another form" in command("compat", "scan", "--patches", str(patches), *module).err


def test_finds_where_the_first_prototype_broke(command: Command, tmp_path: Path) -> None:
    try:
        for release in ("4.44.0", "4.46.3", "4.47.0", "4.47.1", "4.48.0", "4.48.3", "4.49.0"):
            read_source("gpt2", release, Registry(offline=True))
    except SourceError:
        pytest.skip("the sources of the releases are not on this machine: run `mishformer-lens compat scan` once")
    gpt2, gpt_neox = tmp_path / "gpt2.py", tmp_path / "gpt_neox.json"
    gpt2.write_text(prototype.GPT2)
    gpt_neox.write_text(json.dumps(prototype.GPT_NEOX))
    scan = ["compat", "scan", "--offline", "--until", "4.49", "--json", "--patches"]
    rows = command(*scan, str(gpt2)).json
    assert next(row["release"] for row in rows if row["status"] == "fails") == "4.48.0"
    assert {row["status"] for row in rows if row["release"] < "4.48"} == {"applies"}
    module = ["--module", "transformers.models.gpt_neox.modeling_gpt_neox"]
    failing = {row["release"]: len(row["failures"]) for row in command(*scan, str(gpt_neox), *module).json}
    assert {release for release, count in failing.items() if not count} == {
        release for release in failing if release.startswith(("4.45.", "4.46."))
    }
    assert failing["4.48.3"] < failing["4.49.0"]
