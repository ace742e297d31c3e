"""What the number of a release says: every comparison of version numbers of transformers is in this module."""

import re
from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from mishformer_lens.patchers.family import Family, Variant
from mishformer_lens.patchers.fingerprints import shapes_of, variant_of_release

OLDEST_RELEASE = "4.44"
"""The first release that any family has a variant for."""


def select_by_release(family: Family, release: str) -> Variant | None:
    """The variant for a release by its number: the one verified for it, else the newest that does not begin later.

    None where none begins that early, and where the number is none.
    """
    if not has_number(release):
        return None
    name = variant_of_release(family.name, release)
    reached = variants_reached(family, release)
    return next((variant for variant in reached if variant.name == name), reached[0] if reached else None)


def is_too_old(release: str) -> bool:
    """Whether no family has a variant for a release with this number."""
    return _numbers(release) < _numbers(OLDEST_RELEASE)


def has_begun(family: Family, release: str) -> bool:
    """Whether a release with this number is one of those that variants of ``family`` are for.

    Where it is not, the release may lack the family altogether. What has no number counts as the newest.
    """
    first, own = _numbers(first_release_of(family)), _numbers(release)
    # 4.48 is 4.48.0.
    return own + (0,) * (len(first) - len(own)) >= first


def may_have(family: Family, release: str) -> bool:
    """Whether a release with this number is of the minor that the family's description begins with, or later."""
    return _numbers(release) >= _numbers(family.first_release)


def first_release_of(family: Family) -> str:
    """The first release that a family can be hooked in: of the minor that its description says, the first verified one.

    A family may come with a patch release.
    """
    begin = _numbers(family.first_release)
    verified = (release for _, _, shape in shapes_of(family.name) for release in shape["releases"])
    of_minor = (release for release in verified if _numbers(release)[: len(begin)] == begin)
    first = min(of_minor, key=_numbers, default=family.first_release)
    return first if any(_numbers(first)[len(begin) :]) else family.first_release


def why_not_begun(family: Family, release: str) -> str:
    """What to say, and to do, where a release comes before the first that a family can be hooked in."""
    first = first_release_of(family)
    return (
        f"transformers {release} is older than {first}, the first release that {family.name} has a variant for. "
        f'Upgrade it: pip install "transformers>={first}"'
    )


def variants_reached(family: Family, release: str) -> list[Variant]:
    """The variants that do not begin after ``release``, newest first; all, where it has no number."""
    return [each for each in reversed(family.variants) if _numbers(each.first_release) <= _numbers(release)]


def has_number(release: str) -> bool:
    """Whether ``release`` begins with something that can be compared."""
    return _numbers(release) != _NO_NUMBER


def is_version(release: str) -> bool:
    """Whether ``release`` is a version number that packaging tools can read (PEP 440)."""
    try:
        Version(release)
    except InvalidVersion:
        return False
    return True


def nearest_first(family: Family, release: str) -> list[Variant]:
    """All variants, in the order in which they are likely to fit a release with this number."""
    reached = variants_reached(family, release)
    return reached + [variant for variant in family.variants if variant not in reached]


def nearest_release(family: Family, variant: Variant, release: str) -> tuple[str, Mapping[str, str]]:
    """The verified release of a variant that comes closest before ``release``, else after it, with its fingerprints."""
    candidates = sorted(
        (
            (Version(each), shape["members"])
            for name, _, shape in shapes_of(family.name)
            for each in shape["releases"]
            if name == variant.name
        ),
        key=lambda candidate: candidate[0],
    )
    if not candidates:
        return "no release", {}
    before = [candidate for candidate in candidates if _is_at_most(candidate[0], release)]
    version, members = before[-1] if before else candidates[0]
    return str(version), members


_NO_NUMBER = (10**9,)


def _numbers(release: str) -> tuple[int, ...]:
    """The release segment alone, so that a development version counts as the release that it becomes.

    Of what is no version (``5.24.0-acme_patched-7``) the numbers at its start; what has none counts as the newest.
    """
    try:
        return Version(release).release
    except InvalidVersion:
        found = re.match(r"\s*v?(\d+(?:\.\d+)*)", release)
        return tuple(map(int, found.group(1).split("."))) if found else _NO_NUMBER


def _is_at_most(version: Version, release: str) -> bool:
    return version <= Version(release) if is_version(release) else version.release <= _numbers(release)
