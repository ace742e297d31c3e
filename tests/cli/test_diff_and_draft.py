"""``compat diff`` and ``compat draft``: what broke, where, and what to write."""

from pathlib import Path
from typing import Any

import pytest

from mishformer_lens.engine import failing_edits, patch_source
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.releases import first_release_of
from tests.cli.conftest import Command, broken, youngest
from tests.compat.fake_index import FakeIndex, make_wheel


@pytest.mark.usefixtures("index")
def test_diff_shows_the_member_and_the_edit_that_broke(command: Command) -> None:
    finished = command("compat", "diff", "gpt2", "4.45.0", "5.0.0", "--json")
    changes = {member["member"]: member for member in finished.json["members"]}
    assert changes["GPT2MLP"]["change"] == "changed"
    assert "-        hidden_states = self.act(hidden_states)" in changes["GPT2MLP"]["diff"]
    assert "+        hidden_states = self.activation(hidden_states)" in changes["GPT2MLP"]["diff"]
    assert {change["change"] for name, change in changes.items() if name != "GPT2MLP"} == {"same"}
    broken_anchors = [anchor for anchor in finished.json["anchors"] if not anchor["holds"]]
    assert [(anchor["member"], anchor["before"]) for anchor in broken_anchors] == [
        ("GPT2MLP.forward", "self.act(hidden_states)")
    ]
    assert finished.code == 1
    table = command("compat", "diff", "gpt2", "4.45.0", "5.0.0").out
    assert "+        hidden_states = self.activation(hidden_states)" in table


@pytest.mark.usefixtures("index")
def test_diff_of_the_same_source(command: Command) -> None:
    finished = command("compat", "diff", "gpt_neox", "4.45.0", "5.0.0", "--json")
    assert finished.code == 0
    assert {member["change"] for member in finished.json["members"]} == {"same"}
    assert all(anchor["holds"] for anchor in finished.json["anchors"])


def test_diff_does_not_count_comments_and_annotations(
    command: Command, index: FakeIndex, sources: dict[str, str]
) -> None:
    path = FAMILIES["gpt2"].source_path
    text = sources[path].replace("class GPT2MLP(", "# a comment\nclass GPT2MLP(")
    index.add(
        "5.1.0",
        sources
        | {
            path: text.replace(
                "        hidden_states = self.act(", "\n        # why\n        hidden_states = self.act("
            )
        },
    )
    finished = command("compat", "diff", "gpt2", "4.45.0", "5.1.0", "--json")
    assert (finished.code, {member["change"] for member in finished.json["members"]}) == (0, {"same"})


def test_diff_of_a_member_that_is_gone(command: Command, index: FakeIndex, sources: dict[str, str]) -> None:
    path = FAMILIES["gpt2"].source_path
    index.add("5.1.0", sources | {path: sources[path].replace("GPT2MLP", "GPT2FeedForward")})
    finished = command("compat", "diff", "gpt2", "4.45.0", "5.1.0", "--json")
    assert {member["member"]: member["change"] for member in finished.json["members"]}["GPT2MLP"] == "removed"
    assert finished.code == 1


def namespace(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(text, names)
    return names


@pytest.mark.usefixtures("index")
def test_draft_is_a_variant_with_the_edits_that_hold(command: Command, sources: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "v5_0.py"
    finished = command("compat", "draft", "gpt2", "5.0.0", "--out", str(out))
    assert finished.code == 1
    text = out.read_text()
    source = broken(sources)[FAMILIES["gpt2"].source_path]
    drafted = namespace(text)
    assert not list(failing_edits(source, drafted["EDITS"]))
    assert drafted["ATTENTION"]
    comment = text[text.index("# TODO: in GPT2MLP.forward the anchor occurs 0 times") :]
    assert "#     self.act(hidden_states)" in comment
    assert "#     hidden_states = self.activation(hidden_states)" in comment
    # Finished by hand, it is a variant.
    drafted["EDITS"]["GPT2MLP.forward"].append(
        ("self.activation(hidden_states)", "self.hook_post(self.activation(self.hook_pre(hidden_states)))")
    )
    assert "self.hook_post(" in patch_source(source, drafted["EDITS"]).text
    again = command("compat", "draft", "gpt2", "5.0.0", "--out", str(out))
    assert (again.code, "cannot be written" in again.err) == (1, True)
    assert out.read_text() == text


def test_draft_says_where_the_work_of_a_lost_member_is_done(
    command: Command, sources: dict[str, str], tmp_path: Path
) -> None:
    path = FAMILIES["gpt2"].source_path
    wheel = tmp_path / "new.whl"
    wheel.write_bytes(make_wheel("5.99.0", sources | {path: sources[path].replace("GPT2MLP", "GPT2FeedForward")}))
    finished = command("compat", "draft", "gpt2", "--source", str(wheel), "--json")
    assert finished.code == 1
    assert finished.json["open"] == [["GPT2MLP.forward", "self.act(hidden_states)"]]
    assert "# TODO: in GPT2MLP.forward the member is gone" in finished.json["text"]
    assert "# The anchor stands unchanged in: GPT2FeedForward.forward." in finished.json["text"]
    assert finished.json["text"] == command("compat", "draft", "gpt2", "--source", str(wheel)).out.rstrip("\n") + "\n"


@pytest.mark.usefixtures("index")
def test_no_draft_where_a_variant_fits(command: Command, tmp_path: Path) -> None:
    finished = command("compat", "draft", "gpt2", "4.45.0", "--out", str(tmp_path / "none.py"))
    assert finished.code == 0
    assert "no draft is needed" in finished.out
    assert not (tmp_path / "none.py").exists()


@pytest.mark.usefixtures("index")
def test_draft_needs_one_source(command: Command) -> None:
    assert command("compat", "draft", "gpt2").code == 2
    assert command("compat", "draft", "gpt2", "4.45.0", "--source", "installed").code == 2
    assert command("compat", "draft", "gpt3", "4.45.0").code == 2


def test_a_draft_keeps_how_often_an_anchor_occurs(command: Command, sources: dict[str, str], tmp_path: Path) -> None:
    path = FAMILIES["gpt_neox"].source_path
    changed = sources[path].replace("self.act(hidden_states)", "self.activation(hidden_states)")
    wheel = tmp_path / "new.whl"
    wheel.write_bytes(make_wheel("5.99.0", sources | {path: changed}))
    text = command("compat", "draft", "gpt_neox", "--source", str(wheel)).out
    drafted = namespace(text)["EDITS"]
    assert not list(failing_edits(changed, drafted))
    assert [edit.count for edit in drafted["GPTNeoXLayer.forward"] if edit.count > 1] == [2]


def test_a_release_that_does_not_have_the_family_yet_is_nothing_to_compare(
    command: Command, index: FakeIndex, sources: dict[str, str]
) -> None:
    index.add("4.44.0", {})
    index.add("5.1.0", sources)
    family = youngest()
    begin = first_release_of(family)
    for arguments in (["diff", family.name, "4.44.0", "5.1.0"], ["draft", family.name, "4.44.0"]):
        finished = command("compat", *arguments, "--json")
        assert finished.code == 0
        assert f"transformers>={begin}" in finished.json["absent"]
        assert begin in command("compat", *arguments).out
    index.add("5.2.0", {})
    for arguments in (["diff", family.name, "5.1.0", "5.2.0"], ["draft", family.name, "5.2.0"]):
        finished = command("compat", *arguments)
        assert (finished.code, "lacks this model" in finished.err) == (2, True)
