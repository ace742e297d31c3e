"""The forms that edits may have, and the anchors that are none."""

from typing import Any

import pytest

from mishformer_lens.engine import Edit, EditLike, as_edits, failing_edits, patch_source
from mishformer_lens.errors import InvalidAnchorError

PAIRS = {"f": [Edit("a", "b"), Edit("c", "d")]}


def test_edits_stay_as_they_are() -> None:
    assert as_edits({"f": [Edit("a", "b"), Edit("c", "d")]}) == PAIRS


def test_pairs_are_edits_found_once() -> None:
    assert as_edits({"f": [("a", "b"), ("c", "d")]}) == PAIRS


def test_a_flat_list_is_pairs_as_in_mishax() -> None:
    assert as_edits({"f": ["a", "b", "c", "d"]}) == PAIRS


def test_pairs_and_edits_may_be_mixed() -> None:
    mixed: list[EditLike] = [("a", "b"), Edit("c", "d")]
    assert as_edits({"f": mixed}) == PAIRS


def test_a_member_may_have_no_edits() -> None:
    assert as_edits({"f": []}) == {"f": []}


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        (["a", "b", "c"], r"odd in number \(3\)"),
        (["a", "b", ("c", "d")], "mix single source blocks with pairs"),
        (["a", ("c", "d")], "mix single source blocks with pairs"),
        ("ab", "are one text"),
        ([("a", "b", "c")], r"\('a', 'b', 'c'\)"),
        ([("a", 1)], r"\('a', 1\)"),
        ([None], "None"),
    ],
)
def test_other_forms_are_refused_with_the_member(entries: Any, complaint: str) -> None:
    with pytest.raises(InvalidAnchorError, match=rf"edit.* of Block\.forward .*{complaint}"):
        as_edits({"Block.forward": entries})


@pytest.mark.parametrize("anchor", ["if x:", "x = f(", "return x +", "for i in y:\n", "def f(x):", "else:\n    pass"])
def test_an_incomplete_statement_is_no_anchor(anchor: str) -> None:
    with pytest.raises(InvalidAnchorError) as caught:
        patch_source("def f(x):\n    if x:\n        return 1\n", {"f": [(anchor, "pass")]})
    message = str(caught.value)
    assert message.startswith("the before side of an edit of f is not complete Python")
    assert anchor.strip().splitlines()[0] in message
    assert "can never match" in message


def test_an_incomplete_replacement_is_refused() -> None:
    with pytest.raises(InvalidAnchorError, match=r"the after side of an edit of f is not complete Python .*line 2"):
        patch_source("def f(x):\n    return x\n", {"f": [("return x", "y = x\nif y:")]})


@pytest.mark.parametrize("anchor", ["", "   \n ", "# only a comment"])
def test_an_empty_anchor_is_refused(anchor: str) -> None:
    with pytest.raises(InvalidAnchorError, match="an edit of f has an empty anchor"):
        patch_source("def f(x):\n    return x\n", {"f": [(anchor, "pass")]})


def test_failing_edits_names_each_edit_that_does_not_fit_and_why() -> None:
    source = "def f(x):\n    x = 1\n    return x\n"
    fits, unfit, open_if = Edit("x = 1", "x = 2"), Edit("x = 1", "x = 3"), Edit("if x:", "pass")
    found = list(failing_edits(source, {"f": [fits, unfit, open_if], "g": [fits]}))
    assert [(member, edit, type(error).__name__) for member, edit, error in found] == [
        ("f", unfit, "AnchorMatchError"),
        ("f", open_if, "InvalidAnchorError"),
        ("g", fits, "MemberNotFoundError"),
    ]


def test_failing_edits_is_empty_exactly_where_the_source_can_be_patched() -> None:
    source = "def f(x):\n    x = 1\n    return x\n"
    assert not list(failing_edits(source, {"f": [("x = 1", "x = 2"), ("x = 2", "x = 3")]}))
    assert len(list(failing_edits(source, {"f": [("x = 2", "x = 3"), ("x = 1", "x = 2")]}))) == 1
