"""What is written to the table of verified sources, on a family that no release has."""

from __future__ import annotations

import pytest

from mishformer_lens.errors import AnchorsMissingError, MemberNotFoundError, SourceFileMissingError
from mishformer_lens.patchers import Family, Variant
from tests.patchers import made_up
from tests.patchers.made_up import FAMILY, FIRST, RELEASES, WITH_CLASS
from tools.fingerprints import Reader, known_members, make_table


def reader(sources: dict[str, str]) -> Reader:
    """Reads these sources, and misses others as a release misses a file."""

    def read(family: Family, release: str) -> str:
        if release not in sources:
            raise SourceFileMissingError(f"{release} has no {family.name}")
        return sources[release]

    return read


SOURCES = {release: source for release, (_, source) in RELEASES.items()}


def test_releases_are_bound_to_the_variants_that_fit() -> None:
    assert make_table(SOURCES, reader(SOURCES), [FAMILY]) == made_up.make_table()


def test_releases_before_the_family_say_nothing_of_it() -> None:
    # Before its minor; and of its minor, before the patch release that it came with.
    sources = {release: source for release, source in SOURCES.items() if release != "4.44.0"}
    table = make_table(["4.40.0", "4.43.4", *SOURCES], reader(sources), [FAMILY])
    releases = {
        each for shapes in table["made_up"]["shapes"].values() for s in shapes.values() for each in s["releases"]
    }
    assert releases == set(sources)


def test_a_release_that_lost_the_family_is_an_error() -> None:
    for lost in ("4.46.0", "5.1.0"):
        sources = {release: source for release, source in SOURCES.items() if release != lost}
        with pytest.raises(SourceFileMissingError, match=f"{lost} has no made_up"):
            make_table(SOURCES, reader(sources), [FAMILY])


def test_a_release_that_no_variant_fits_is_an_error_or_is_left_out() -> None:
    sources = SOURCES | {"4.46.0": FIRST.replace("weights @ x", "weights.matmul(x)")}
    with pytest.raises(AnchorsMissingError, match=r"made_up source of transformers 4\.46\.0"):
        make_table(SOURCES, reader(sources), [FAMILY])
    left_out: list[AnchorsMissingError] = []
    table = make_table(SOURCES, reader(sources), [FAMILY], left_out.append)
    assert ["4.46.0" in str(error) for error in left_out] == [True]
    assert "4.46.0" not in str(table)


def test_every_member_that_a_variant_touches_has_a_fingerprint() -> None:
    assert set(known_members(FAMILY, "4.44.0", WITH_CLASS, FIRST)) == set(WITH_CLASS.members)
    elsewhere = Variant("made_up", "v4_44", {**WITH_CLASS.edits, "Gone.forward": [("x", "y")]})
    with pytest.raises(MemberNotFoundError, match=r"4\.44\.0 lacks Gone, which v4_44 touches"):
        known_members(FAMILY, "4.44.0", elsewhere, FIRST)
