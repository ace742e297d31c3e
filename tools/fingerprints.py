"""Makes and checks `mishformer_lens/patchers/fingerprints.json`: which source shape each release has, and its variant.

    python tools/fingerprints.py --check     says where the committed table differs from the releases' wheels
    python tools/fingerprints.py --write     writes the table

Sources come from the package index that pip is set to use, and are cached. Nothing is installed or imported.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mishformer_lens.compat.sources import Registry, read_source
from mishformer_lens.engine import failing_edits, member_fingerprints, source_fingerprint
from mishformer_lens.errors import AnchorsMissingError, SourceFileMissingError
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.fingerprints import FINGERPRINTS_FILE, FamilyTable, file_hash
from mishformer_lens.patchers.resolver import variants_reached

Reader = Callable[[Family, str], str]


def make_table(releases: Iterable[str], read: Reader) -> dict[str, FamilyTable]:
    """The table for `releases`, oldest first.

    Raises AnchorsMissingError for a release that no variant fits.
    """
    releases = list(releases)
    table: dict[str, FamilyTable] = {}
    for family in FAMILIES.values():
        entry: FamilyTable = {"files": {}, "shapes": {}}
        for release in releases:
            try:
                source = read(family, release)
            except SourceFileMissingError:
                # The family is younger than this release.
                continue
            variant = choose_variant(family, release, source)
            members = member_fingerprints(source, variant.members)
            fingerprint = source_fingerprint(members)
            entry["files"][file_hash(source)] = (variant.name, fingerprint)
            shapes = entry["shapes"].setdefault(variant.name, {})
            shapes.setdefault(fingerprint, {"releases": [], "members": members})["releases"].append(release)
        table[family.name] = entry
    return table


def choose_variant(family: Family, release: str, source: str) -> Variant:
    """The newest variant that does not begin after `release` and whose anchors all match."""
    for variant in variants_reached(family, release):
        if not any(failing_edits(source, variant.edits)):
            return variant
    raise AnchorsMissingError(
        f"no variant fits the {family.name} source of transformers {release}. "
        f"See `mishformer-lens compat draft {family.name} {release}`."
    )


def to_text(table: dict[str, FamilyTable]) -> str:
    """The table as it is committed."""
    return json.dumps(table, indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--check", action="store_true", help="exit with 1 where the committed table is not what it should be"
    )
    action.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--since", default="4.44", help="the first release (default: %(default)s)")
    arguments = parser.parse_args()
    registry = Registry()
    releases = registry.releases(since=arguments.since)
    made = to_text(make_table(releases, lambda family, release: read_source(family, release, registry)))
    if arguments.write:
        FINGERPRINTS_FILE.write_text(made, encoding="utf-8")
    elif FINGERPRINTS_FILE.read_text(encoding="utf-8") != made:
        print(f"{FINGERPRINTS_FILE.name} is not what the releases' sources say: run it with --write and read the diff")
        return 1
    print(f"{len(releases)} releases, {releases[0]} to {releases[-1]}, {len(FAMILIES)} families: every edit applies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
