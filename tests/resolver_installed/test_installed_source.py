"""The resolver on the source of the installed release and on copies of it with one thing changed.

Needs transformers installed, but imports neither it nor torch.
"""

import ast
import re

import pytest
from packaging.version import Version

import mishformer_lens
from mishformer_lens.engine import Edit, as_edits, failing_edits, patch_source
from mishformer_lens.engine.matching import find_member
from mishformer_lens.errors import (
    AnchorsMissingError,
    FamilyNotInReleaseError,
    ModifiedSourceError,
    ReleaseTooOldError,
    UnverifiedSourceError,
    UnverifiedSourceWarning,
)
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.installed import Source, installed_release, installed_source
from mishformer_lens.patchers.releases import first_release_of, has_begun, select_by_release
from mishformer_lens.patchers.resolver import ALLOW_UNVERIFIED_VARIABLE, judge, require, resolve
from tests.sources import with_another_statement

RELEASE = installed_release()


HERE = [each for each in FAMILIES.values() if has_begun(each, RELEASE)]
"""The families that the installed release has; the others are no case of it."""

TRIED = list({each.template or each.name: each for each in HERE}.values())
"""Those without a template, and one of each template: what the resolver does is the same for all of one."""


@pytest.fixture(params=TRIED, ids=[each.name for each in TRIED])
def family(request: pytest.FixtureRequest) -> Family:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def source(family: Family) -> str:
    return installed_source(family).text


@pytest.fixture
def variant(family: Family, source: str) -> Variant:
    return judge(family, source, RELEASE).variant


@pytest.fixture(autouse=True)
def _no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_UNVERIFIED_VARIABLE, raising=False)


def untouched_function(family: Family, source: str) -> str:
    """A method of the module in a class that no edit of any variant touches."""
    touched = {name for variant in family.variants for name in variant.members}
    names = [
        f"{cls.name}.{method.name}"
        for cls in ast.parse(source).body
        if isinstance(cls, ast.ClassDef) and cls.name not in touched
        for method in cls.body
        if isinstance(method, ast.FunctionDef)
    ]
    assert names
    return names[-1]


def test_the_installed_source_is_verified_and_the_variant_selected_at_import_is_its(family: Family) -> None:
    verdict = resolve(family)
    assert verdict.status == "verified"
    assert RELEASE in verdict.verified_releases
    assert verdict.variant is select_by_release(family, RELEASE) is mishformer_lens.variants[family.name]


def test_every_edit_applies_to_the_installed_source(source: str, variant: Variant) -> None:
    assert not list(failing_edits(source, variant.edits))
    patched = patch_source(source, variant.edits)
    assert set(patched.members) == set(variant.members)
    assert patched.text != source


def test_the_edits_leave_every_line_that_they_do_not_replace(source: str, variant: Variant) -> None:
    tree = ast.parse(source)
    lines, patched = source.split("\n"), patch_source(source, variant.edits).text.split("\n")
    nodes = [find_member(tree, name) for name in variant.members]
    first = min(node.lineno for node in nodes if node is not None)
    last = max(node.end_lineno or 0 for node in nodes if node is not None)
    assert patched[: first - 1] == lines[: first - 1]
    assert patched[len(patched) - len(lines) + last :] == lines[last:]


def test_a_made_up_release_with_this_source_is_accepted_silently(family: Family, source: str, variant: Variant) -> None:
    for text in (source, "# another file\n" + source):
        verdict = require(family, text, "6.0.0")
        assert (verdict.status, verdict.variant) == ("verified", variant)
        assert RELEASE in verdict.verified_releases


@pytest.mark.parametrize("suffix", [".dev0", "rc1", "+cu118", ".post1"])
def test_development_and_local_versions_of_it_are_accepted(family: Family, source: str, suffix: str) -> None:
    release = Version(RELEASE).base_version + suffix
    assert require(family, "# another file\n" + source, release).status == "verified"


def test_a_changed_line_elsewhere_is_accepted_silently(family: Family, source: str, variant: Variant) -> None:
    changed = with_another_statement(source, untouched_function(family, source))
    for release in (RELEASE, "6.0.0"):
        assert require(family, changed, release).variant is variant


def test_a_changed_line_in_any_touched_member_is_noticed(family: Family, source: str, variant: Variant) -> None:
    for member in variant.edits:
        verdict = judge(family, with_another_statement(source, member), RELEASE)
        assert (verdict.status, verdict.variant, verdict.nearest_release) == ("applies", variant, RELEASE)
        assert verdict.changed_members == (member.partition(".")[0],)


def test_a_changed_line_in_a_touched_member_is_refused(family: Family, source: str, variant: Variant) -> None:
    member = next(iter(variant.edits))
    name = member.partition(".")[0]
    changed = with_another_statement(source, member)
    with pytest.raises(ModifiedSourceError, match=f"transformers {RELEASE} is not the one of .*: {name} differ"):
        require(family, changed, RELEASE)
    with pytest.raises(UnverifiedSourceError) as caught:
        require(family, changed, "6.0.0")
    message, verdict = str(caught.value), judge(family, changed, "6.0.0")
    assert f"Every anchor of variant {verdict.variant.name} matches" in message
    assert f"changed since {verdict.nearest_release}, the nearest" in message
    assert name in message
    assert "allow_unverified=True" in message
    assert f"{ALLOW_UNVERIFIED_VARIABLE}=1" in message


def test_the_switch_lets_a_person_hook_it(
    monkeypatch: pytest.MonkeyPatch, family: Family, source: str, variant: Variant
) -> None:
    changed = Source("modeling.py", with_another_statement(source, next(iter(variant.edits))))
    with pytest.raises(ModifiedSourceError):
        resolve(family, changed)
    with pytest.warns(UnverifiedSourceWarning):
        assert resolve(family, changed, allow_unverified=True).variant is variant
    monkeypatch.setenv(ALLOW_UNVERIFIED_VARIABLE, "1")
    assert resolve(family, changed).variant is variant  # and warnings are errors here: there is no second one


def test_a_moved_anchor_is_noticed_in_every_member(source: str, variant: Variant) -> None:
    for member, edits in as_edits(variant.edits).items():
        if not edits:
            continue  # it counts for what the source is, and nothing is changed in it
        moved = patch_source(source, {member: [Edit(edits[-1].before, "moved", edits[-1].count)]}).text
        assert member in [name for name, _, _ in failing_edits(moved, variant.edits)]


def test_a_moved_anchor_is_refused_whatever_the_switch_says(family: Family, source: str, variant: Variant) -> None:
    # Of the first member: a later variant may only add edits to others.
    member, edits = next((member, edits) for member, edits in as_edits(variant.edits).items() if edits)
    moved = patch_source(source, {member: [Edit(edits[-1].before, "moved", edits[-1].count)]}).text
    with pytest.raises(AnchorsMissingError, match="no variant fits") as caught:
        require(family, moved, RELEASE, allow_unverified=True)
    assert "allow_unverified" not in str(caught.value)


def test_a_release_before_the_first_variant_is_refused_with_any_source_but_a_verified_one(
    family: Family, source: str, variant: Variant
) -> None:
    with pytest.raises(ReleaseTooOldError, match=rf"4\.43\.4 is older than {re.escape(first_release_of(family))}"):
        require(family, with_another_statement(source, next(iter(variant.edits))), "4.43.4", allow_unverified=True)
    for release in ("4.43.4", "unknown"):
        assert require(family, source, release).variant is variant


def test_the_oldest_variant_refuses_every_shape_that_is_not_its_own(
    family: Family, source: str, variant: Variant
) -> None:
    oldest = family.variants[0]
    failing = {member for member, _, _ in failing_edits(source, oldest.edits)}
    # Variants with the same edits differ in what their models call the cache; others only have more.
    later = as_edits(variant.edits)
    assert bool(failing) == any(
        edit not in later.get(member, ()) for member, edits in as_edits(oldest.edits).items() for edit in edits
    )


def test_a_family_that_the_installed_release_does_not_have_says_from_when_on() -> None:
    for family in FAMILIES.values():
        if family in HERE:
            continue
        assert mishformer_lens.variants[family.name] is None
        with pytest.raises((FamilyNotInReleaseError, ReleaseTooOldError)) as caught:
            resolve(family)
        assert f'pip install "transformers>={family.first_release}' in str(caught.value)


def test_a_member_that_moved_fails_by_its_name(source: str, variant: Variant) -> None:
    """As attention moved into a function in 4.48."""
    member = next(member for member, edits in variant.edits.items() if edits)
    name = member.rpartition(".")[2]
    moved = source.replace(f"def {name}(", f"def {name}_elsewhere(")
    errors = [str(error) for each, _, error in failing_edits(moved, variant.edits) if each == member]
    assert errors
    assert all(error.startswith(f"there is no {member} in this source") for error in errors)
