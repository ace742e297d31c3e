"""The table of verified sources: generated data, read and looked up here."""

import functools
import hashlib
import json
from pathlib import Path
from typing import TypedDict

FINGERPRINTS_FILE = Path(__file__).with_name("fingerprints.json")


class Shape(TypedDict):
    """One verified source shape of a variant.

    Attributes:
        releases: the releases that have it, oldest first.
        members: member to its fingerprint, for every member that the variant touches.
    """

    releases: list[str]
    members: dict[str, str]


class FamilyTable(TypedDict):
    """What is verified of one family.

    Attributes:
        files: hash of a whole source file to the variant and the fingerprint that it has.
        shapes: variant to fingerprint to shape.
    """

    files: dict[str, tuple[str, str]]
    shapes: dict[str, dict[str, Shape]]


@functools.cache
def verified() -> dict[str, FamilyTable]:
    """The table, by family. Do not change it."""
    table: dict[str, FamilyTable] = json.loads(FINGERPRINTS_FILE.read_text(encoding="utf-8"))
    return table


def verified_of(family: str) -> FamilyTable:
    """What is verified of a family: nothing, where nobody has looked."""
    return verified().get(family, {"files": {}, "shapes": {}})


def shapes_of(family: str) -> list[tuple[str, str, Shape]]:
    """Variant, fingerprint and shape of everything that is verified of a family."""
    return [
        (variant, fingerprint, shape)
        for variant, shapes in verified_of(family)["shapes"].items()
        for fingerprint, shape in shapes.items()
    ]


def variant_of_release(family: str, release: str) -> str | None:
    """The name of the variant that was verified for ``release``, if that release was seen."""
    return next((variant for variant, _, shape in shapes_of(family) if release in shape["releases"]), None)


def file_hash(source: str) -> str:
    """What the table knows a file by, so that a known file need not be parsed."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]
