"""Makes and checks `mishformer_lens/patchers/fingerprints.json`: which source shape each release has, and its variant.

    python tools/fingerprints.py --check                    says where the committed table differs from the wheels
    python tools/fingerprints.py --write                    writes the table
    python tools/fingerprints.py --write llama mistral      writes what it says of these families
    python tools/fingerprints.py --write --unfinished       leaves out releases that no variant fits, and names them

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
from mishformer_lens.errors import AnchorsMissingError, MemberNotFoundError, SourceFileMissingError
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.fingerprints import FINGERPRINTS_FILE, FamilyTable, file_hash
from mishformer_lens.patchers.releases import OLDEST_RELEASE, may_have, variants_reached

Reader = Callable[[Family, str], str]


def make_table(
    releases: Iterable[str],
    read: Reader,
    families: Iterable[Family] | None = None,
    no_fit: Callable[[AnchorsMissingError], None] | None = None,
) -> dict[str, FamilyTable]:
    """The table for `releases`, oldest first.

    A release that comes before a family's first variant says nothing of it, nor does one of the same minor that lacks
    it still. `no_fit` is told of a release that no variant fits; without it, that raises AnchorsMissingError.
    SourceFileMissingError: a release lacks a family that an older one has.
    """
    releases = list(releases)
    table: dict[str, FamilyTable] = {}
    for family in FAMILIES.values() if families is None else families:
        entry: FamilyTable = {"files": {}, "shapes": {}}
        for release in (release for release in releases if may_have(family, release)):
            try:
                source = read(family, release)
            except SourceFileMissingError:
                if entry["files"] or not release.startswith(f"{family.first_release}."):
                    raise
                continue
            try:
                variant = choose_variant(family, release, source)
            except AnchorsMissingError as error:
                if no_fit is None:
                    raise
                no_fit(error)
                continue
            members = known_members(family, release, variant, source)
            fingerprint = source_fingerprint(members)
            entry["files"][file_hash(source)] = (variant.name, fingerprint)
            shapes = entry["shapes"].setdefault(variant.name, {})
            shapes.setdefault(fingerprint, {"releases": [], "members": members})["releases"].append(release)
        table[family.name] = entry
    return table


def known_members(family: Family, release: str, variant: Variant, source: str) -> dict[str, str]:
    """The fingerprint of every member that a variant touches. Raises MemberNotFoundError where the source lacks one."""
    members = member_fingerprints(source, variant.members)
    absent = [name for name, fingerprint in members.items() if fingerprint == "absent"]
    if absent or members.keys() != set(variant.members):
        raise MemberNotFoundError(
            f"{family.name} of transformers {release} lacks {', '.join(absent)}, which {variant.name} touches: a "
            "fingerprint would say nothing of it. Let the variant's edits name the members that are there."
        )
    return members


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
    parser.add_argument("--since", default=OLDEST_RELEASE, help="the first release (default: %(default)s)")
    parser.add_argument("--unfinished", action="store_true", help="leave out releases that no variant fits")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="only these families")
    arguments = parser.parse_args()
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        parser.error(f"there is no family {', '.join(sorted(unknown))}; known are {', '.join(FAMILIES)}")
    registry = Registry()
    releases = registry.releases(since=arguments.since)
    committed = FINGERPRINTS_FILE.read_text(encoding="utf-8")
    chosen = [FAMILIES[name] for name in arguments.families or FAMILIES]
    left_out: list[AnchorsMissingError] = []
    table = make_table(
        releases,
        lambda family, release: read_source(family, release, registry),
        chosen,
        left_out.append if arguments.unfinished else None,
    )
    kept = {name: entry for name, entry in json.loads(committed).items() if name in FAMILIES and arguments.families}
    made = to_text(kept | table)
    for error in left_out:
        print(str(error).partition("\n")[0])
    if arguments.write:
        FINGERPRINTS_FILE.write_text(made, encoding="utf-8")
    elif committed != made:
        print(f"{FINGERPRINTS_FILE.name} is not what the releases' sources say: run it with --write and read the diff")
        return 1
    fit = "every edit applies" if not left_out else f"{len(left_out)} sources fit no variant"
    print(f"{len(releases)} releases, {releases[0]} to {releases[-1]}, {len(chosen)} families: {fit}")
    return int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main())
