"""From a release and its source to a variant, or to the error that says why there is none."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mishformer_lens.errors import (
    AnchorsMissingError,
    FamilyNotInReleaseError,
    ModifiedSourceError,
    ReleaseTooOldError,
    ResolutionError,
    SourceUnreadableError,
    TransformersNotInstalledError,
    UnverifiedSourceError,
    UnverifiedSourceWarning,
)
from mishformer_lens.patchers import resolver
from mishformer_lens.patchers.installed import UNKNOWN_RELEASE, Source, installed_release, installed_source
from mishformer_lens.patchers.releases import select_by_release
from mishformer_lens.patchers.resolver import ALLOW_UNVERIFIED_VARIABLE, judge, require, resolve
from tests.patchers.made_up import (
    FAMILY,
    FIRST,
    FUNCTION,
    RELEASES,
    SCALED,
    WITH_CLASS,
    WITH_FUNCTION,
    install,
    use_table,
)

pytestmark = pytest.mark.usefixtures("table")

# Numbers that are none, by PEP 440 or at all.
ODD = ["5.24.0-acme_patched-7", "4.46.x", "main", "unknown", UNKNOWN_RELEASE, ""]
OLD = ["4.43.4", "4.43.9.dev0", "4", "3.5.1", "4.4.44", "0.0.0", "4.40.0-acme_patched-7"]

# A line that changed inside a touched member; every anchor still matches.
CHANGED = FIRST.replace("x = self.attn(self.norm(x), mask)", "x = self.attn(self.norm(x), mask) * 2")
# A line that changed in a member that no edit touches.
ELSEWHERE = FIRST.replace("self.block(x, None)", "self.block(2 * x, None)")
# An anchor that is gone.
MOVED = FIRST.replace("return residual + x", "return self.add(residual, x)")


@pytest.mark.parametrize("release", RELEASES)
def test_the_source_of_a_verified_release_is_known(release: str) -> None:
    variant, source = RELEASES[release]
    verdict = require(FAMILY, source, release)
    assert (verdict.status, verdict.variant, verdict.family, verdict.release) == (
        "verified",
        variant,
        "made_up",
        release,
    )
    assert release in verdict.verified_releases
    assert not verdict.failures
    assert not verdict.changed_members


def test_a_known_file_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr("mishformer_lens.patchers.resolver.member_fingerprints", refuse)
    assert judge(FAMILY, SCALED, "4.46.0").status == "verified"
    with pytest.raises(AssertionError, match="parsed"):
        judge(FAMILY, SCALED + "\n", "4.46.0")


@pytest.mark.parametrize(
    "release", ["6.0.0", "4.45.1", "4.44.0.dev0", "5.0.0rc1", "4.44.2+cu118", "99!4.50", *ODD, *OLD]
)
@pytest.mark.parametrize(
    "source", [SCALED, SCALED.replace("math.sqrt(8) + mask)", "math.sqrt( 8 )+mask)  # why"), ELSEWHERE]
)
def test_a_known_shape_is_accepted_silently_whatever_the_number(release: str, source: str) -> None:
    verdict = require(FAMILY, source, release)
    assert (verdict.status, verdict.variant.name) == ("verified", "v4_44")
    expected = ("4.44.0", "4.44.2") if source is ELSEWHERE else ("4.46.0",)
    assert verdict.verified_releases == expected


@pytest.mark.parametrize("release", ["6.0.0", "4.45.0", "4.44.1", "5.0.0rc1", "4.44.0.dev0", "4.44.0+local", *ODD])
def test_a_changed_line_in_a_touched_member_is_refused(release: str) -> None:
    with pytest.raises(UnverifiedSourceError) as caught:
        require(FAMILY, CHANGED, release)
    message = str(caught.value)
    assert f"the made_up source of transformers {release} was never verified" in message
    assert "Every anchor of variant v4_44 matches" in message
    assert "Block changed since" in message
    assert "allow_unverified=True" in message
    assert f"{ALLOW_UNVERIFIED_VARIABLE}=1" in message


@pytest.mark.parametrize(
    ("release", "nearest", "changed"),
    [
        ("4.44.1", "4.44.0", ("Block",)),
        ("4.45.0", "4.44.2", ("Block",)),
        ("4.46.0rc1", "4.44.2", ("Block",)),
        ("4.46.0+cu118", "4.46.0", ("Attention", "Block")),
        ("6.0", "4.46.0", ("Attention", "Block")),
        ("4.44.0.dev0", "4.44.0", ("Block",)),
        ("4.45.0-acme_patched-7", "4.44.2", ("Block",)),
        ("4.46.0-acme_patched-7", "4.46.0", ("Attention", "Block")),
        (UNKNOWN_RELEASE, "4.46.0", ("Attention", "Block")),
    ],
)
def test_the_nearest_verified_release_and_what_changed_since(
    release: str, nearest: str, changed: tuple[str, ...]
) -> None:
    verdict = judge(FAMILY, CHANGED, release)
    assert (verdict.status, verdict.nearest_release, verdict.changed_members) == ("applies", nearest, changed)
    assert verdict.verified_releases == ()
    with pytest.raises(UnverifiedSourceError, match=f"{', '.join(changed)} changed since {nearest}, the nearest"):
        require(FAMILY, CHANGED, release)


@pytest.mark.parametrize("release", RELEASES)
def test_a_changed_line_in_a_verified_release_is_a_modified_source(release: str) -> None:
    _, source = RELEASES[release]
    changed = source.replace("self.norm(x)", "self.other(x)")
    with pytest.raises(ModifiedSourceError) as caught:
        require(FAMILY, changed, release)
    message = str(caught.value)
    assert f"the installed transformers {release} is not the one of that release: Block differ(s) from" in message
    assert f"transformers=={release}" in message
    assert f"{ALLOW_UNVERIFIED_VARIABLE}=1" in message
    with pytest.warns(UnverifiedSourceWarning):
        assert require(FAMILY, changed, release, allow_unverified=True).status == "applies"


def test_the_switch_lets_a_person_go_on_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UnverifiedSourceWarning, match=r"made_up source of transformers 6\.0 was never") as by_argument:
        assert require(FAMILY, CHANGED, "6.0", allow_unverified=True).variant is WITH_CLASS
    assert len(by_argument) == 1
    monkeypatch.setenv(ALLOW_UNVERIFIED_VARIABLE, "1")
    with pytest.warns(UnverifiedSourceWarning) as by_environment:
        assert require(FAMILY, CHANGED, "6.0").variant is WITH_CLASS
    assert len(by_environment) == 1


def test_the_argument_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_UNVERIFIED_VARIABLE, "1")
    with pytest.raises(UnverifiedSourceError):
        require(FAMILY, CHANGED, "6.0", allow_unverified=False)


@pytest.mark.parametrize("value", ["", "0", "true", "yes"])
def test_the_environment_variable_has_one_value_that_counts(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(ALLOW_UNVERIFIED_VARIABLE, value)
    with pytest.raises(UnverifiedSourceError):
        require(FAMILY, CHANGED, "6.0")


def test_the_switch_does_not_warn_about_a_known_shape() -> None:
    require(FAMILY, ELSEWHERE, "6.0", allow_unverified=True)


@pytest.mark.parametrize("release", ["4.44.0", "4.45.0", "6.0"])
def test_a_missing_anchor_is_named_and_no_switch_helps(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setenv(ALLOW_UNVERIFIED_VARIABLE, "1")
    for allow in (None, False, True):
        with pytest.raises(AnchorsMissingError) as caught:
            require(FAMILY, MOVED, release, allow)
        message = str(caught.value)
        assert f"no variant fits the made_up source of transformers {release}" in message
        assert "v4_44, lacks 1 anchor(s)" in message
        assert "residual + x" in message
        assert "return self.add(residual, x)" in message  # the nearest statement
        assert "allow_unverified" not in message


def test_the_variant_that_fits_best_speaks_for_a_source_that_nothing_fits() -> None:
    verdict = judge(FAMILY, FUNCTION.replace("residual + x", "self.add(residual, x)"), "4.44.0")
    assert (verdict.status, verdict.variant) == ("fails", WITH_FUNCTION)
    assert [member for member, _ in verdict.failures] == ["Block.forward"]


def test_a_newer_variant_serves_an_older_number_where_its_anchors_match() -> None:
    changed = FUNCTION.replace("self.norm(x)", "self.other(x)")
    verdict = judge(FAMILY, changed, "4.50.0")
    assert (verdict.status, verdict.variant, verdict.nearest_release) == ("applies", WITH_FUNCTION, "5.1.0")


def test_a_variant_without_a_verified_release_has_no_nearest_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_table(monkeypatch, tmp_path, {"made_up": {"files": {}, "shapes": {}}})
    verdict = judge(FAMILY, FIRST, "4.44.0")
    assert (verdict.status, verdict.nearest_release) == ("applies", "no release")
    assert verdict.changed_members == WITH_CLASS.members


@pytest.mark.parametrize("release", OLD)
@pytest.mark.parametrize("source", [CHANGED, MOVED], ids=["changed", "moved"])
def test_an_older_release_is_refused_whatever_the_switch_says_unless_its_source_is_verified(
    release: str, source: str
) -> None:
    with pytest.raises(
        ReleaseTooOldError, match=rf"transformers {release} is older than 4\.44, the first release"
    ) as caught:
        require(FAMILY, source, release, allow_unverified=True)
    assert 'pip install "transformers>=4.44"' in str(caught.value)


@pytest.mark.parametrize("release", ["4.44.0.dev0", "4.44.0rc1", "4.44", "4.44.0", "4.44.0+cpu", "5"])
def test_a_version_before_the_first_release_counts_as_that_release(release: str) -> None:
    assert require(FAMILY, FIRST, release).status == "verified"


@pytest.mark.parametrize(
    ("release", "variant"),
    [
        ("4.43.4", None),
        ("4.44.0.dev0", WITH_CLASS),
        ("4.44.0", WITH_CLASS),
        ("4.45.2+cu118", WITH_CLASS),
        ("5.0.0", WITH_CLASS),
        ("5.1.0rc1", WITH_FUNCTION),
        ("5.1.0", WITH_FUNCTION),
        ("6.0", WITH_FUNCTION),
        ("5.1.0-acme_patched-7", WITH_FUNCTION),
        ("v5.0.1-x", WITH_CLASS),
        ("main", None),
        (UNKNOWN_RELEASE, None),
    ],
)
def test_a_release_points_to_a_variant_by_its_number_alone(release: str, variant: object) -> None:
    assert select_by_release(FAMILY, release) is variant


def test_a_source_that_is_not_python_is_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        judge(FAMILY, "class Attention(:", "4.44.0")


@pytest.mark.parametrize("source", ["class Attention(:", "a = 1\0"])
def test_it_cannot_be_used(source: str) -> None:
    with pytest.raises(SourceUnreadableError, match=r"made_up source of transformers 4\.44\.0 is not Python"):
        require(FAMILY, source, "4.44.0", allow_unverified=True)


def test_the_installed_release_and_source_are_found_without_an_import(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = install(monkeypatch, tmp_path, "4.44.2", FIRST)
    assert installed_release() == "4.44.2"
    assert installed_source(FAMILY) == Source(str(path), FIRST)
    assert resolve(FAMILY).variant is WITH_CLASS


def test_no_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    for call in (installed_release, lambda: installed_source(FAMILY), lambda: resolve(FAMILY)):
        with pytest.raises(TransformersNotInstalledError, match=r"transformers is not installed .*from 4\.44 on"):
            call()


def test_transformers_without_the_family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "4.44.2", None)
    with pytest.raises(FamilyNotInReleaseError) as caught:
        installed_source(FAMILY)
    assert f"has no {FAMILY.source_path}" in str(caught.value)
    assert 'pip install "transformers>=4.44"' in str(caught.value)
    assert "reinstall it" in str(caught.value)


def test_metadata_without_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "4.44.2", None)
    (tmp_path / "transformers" / "__init__.py").unlink()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(TransformersNotInstalledError, match="Reinstall it"):
        installed_source(FAMILY)


def test_threads_get_one_verdict_from_one_judgement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "4.44.2", ELSEWHERE)
    judged = []

    def slowly(*arguments: Any) -> Any:
        judged.append(threading.get_ident())
        threading.Event().wait(0.05)
        return judge(*arguments)

    monkeypatch.setattr(resolver, "judge", slowly)
    barrier = threading.Barrier(8)

    def ask(_: int) -> object:
        barrier.wait()
        return resolve(FAMILY)

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(ask, range(8)))
    assert len({id(verdict) for verdict in verdicts}) == 1
    assert len(judged) == 1


def test_a_refusal_is_the_same_in_every_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "4.44.2", CHANGED)

    def ask(_: int) -> str:
        with pytest.raises(ResolutionError) as caught:
            resolve(FAMILY)
        return str(caught.value)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1


def test_a_file_is_judged_anew_when_it_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = install(monkeypatch, tmp_path, "4.44.2", FIRST)
    first = resolve(FAMILY)
    assert resolve(FAMILY) is first
    then = path.stat().st_mtime_ns
    path.write_text(MOVED, encoding="utf-8")
    os.utime(path, ns=(then, then))
    with pytest.raises(AnchorsMissingError):
        resolve(FAMILY)


def test_the_switch_counts_at_every_call_and_warns_once_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, "4.45.0", CHANGED)
    with pytest.raises(UnverifiedSourceError):
        resolve(FAMILY)
    with pytest.warns(UnverifiedSourceWarning):
        verdict = resolve(FAMILY, allow_unverified=True)
    with warnings.catch_warnings(record=True) as again:
        warnings.simplefilter("always")
        assert resolve(FAMILY, allow_unverified=True) is verdict
        monkeypatch.setenv(ALLOW_UNVERIFIED_VARIABLE, "1")
        assert resolve(FAMILY) is verdict
    assert not again
    monkeypatch.delenv(ALLOW_UNVERIFIED_VARIABLE)
    with pytest.raises(UnverifiedSourceError):
        resolve(FAMILY)
