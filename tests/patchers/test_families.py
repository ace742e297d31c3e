"""The committed families, their variants and the table of what is verified: data that has to agree."""

import copy
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from mishformer_lens import patchers
from mishformer_lens.compat.tables import ATTENTION
from mishformer_lens.engine import as_edits, source_fingerprint
from mishformer_lens.patchers import FAMILIES, Family, Variant
from mishformer_lens.patchers.fingerprints import shapes_of, variant_of_release, verified
from mishformer_lens.patchers.releases import (
    OLDEST_RELEASE,
    first_release_of,
    has_begun,
    select_by_release,
    why_not_begun,
)

PATCHERS = Path(patchers.__file__).parent

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_variant = pytest.mark.parametrize(
    "variant",
    [pytest.param(each, id=f"{each.family}-{each.name}") for one in FAMILIES.values() for each in one.variants],
)


@each_family
def test_a_family_knows_where_its_source_is(family: Family) -> None:
    assert family.module_name == f"transformers.models.{family.name}.modeling_{family.name}"
    assert family.source_path == f"transformers/models/{family.name}/modeling_{family.name}.py"
    assert FAMILIES[family.name] is family


@each_family
def test_variants_are_in_the_order_of_the_releases(family: Family) -> None:
    releases = [Version(variant.first_release) for variant in family.variants]
    assert releases == sorted(set(releases))
    assert releases[0] == Version(family.first_release) >= Version(OLDEST_RELEASE)
    assert all(family.variant(variant.name) is variant for variant in family.variants)


@each_variant
def test_a_variant_names_its_first_release_and_its_members(variant: Variant) -> None:
    assert re.fullmatch(r"v\d+_\d+", variant.name)
    assert variant.name == f"v{variant.first_release.replace('.', '_')}"
    assert set(variant.members) == {member.partition(".")[0] for member in variant.edits}
    assert len(set(variant.members)) == len(variant.members)
    assert variant.attention[0] == "eager"
    assert not set(variant.attention) & set(variant.unsupported)
    # What is not offered has its reason.
    assert {*variant.attention, *variant.unsupported} >= set(ATTENTION)
    assert "__init__" not in str(list(variant.edits))


@each_variant
def test_both_sides_of_every_edit_differ(variant: Variant) -> None:
    for entries in as_edits(variant.edits).values():
        # A member without edits counts all the same: edits elsewhere say what stands in it.
        assert all(edit.before != edit.after and edit.count > 0 for edit in entries)


@each_variant
def test_copies_of_hooked_models_share_families_and_variants(variant: Variant) -> None:
    assert copy.deepcopy(variant) is variant
    assert copy.deepcopy(FAMILIES[variant.family]) is FAMILIES[variant.family]


@each_variant
def test_every_variant_was_verified_on_the_release_that_it_is_named_after(variant: Variant) -> None:
    verified_on = [
        release for name, _, shape in shapes_of(variant.family) if name == variant.name for release in shape["releases"]
    ]
    first = min(verified_on, key=Version)
    assert Version(first).release[:2] == Version(variant.first_release).release


@each_family
def test_the_table_speaks_of_the_members_that_variants_touch(family: Family) -> None:
    for name, fingerprint, shape in shapes_of(family.name):
        assert set(shape["members"]) == set(family.variant(name).members)
        assert source_fingerprint(shape["members"]) == fingerprint
        assert "absent" not in shape["members"].values()


@each_family
def test_every_known_file_has_a_known_shape(family: Family) -> None:
    table = verified()[family.name]
    assert all(fingerprint in table["shapes"][name] for name, fingerprint in table["files"].values())


@each_family
def test_every_release_is_in_the_table_once_and_selected_by_its_number(family: Family) -> None:
    releases = [release for _, _, shape in shapes_of(family.name) for release in shape["releases"]]
    assert len(set(releases)) == len(releases)
    for release in releases:
        selected = select_by_release(family, release)
        assert selected is not None
        assert selected.name == variant_of_release(family.name, release)


@each_family
@pytest.mark.parametrize(
    ("release", "like"),
    [("4.44.0.dev0", "4.44.0"), ("4.45.2+cu118", "4.45.2"), ("5.23.1", "5.23.0"), ("6.0", "5.24.0")],
)
def test_a_release_that_was_never_seen_points_to_the_variant_before_it(family: Family, release: str, like: str) -> None:
    assert variant_of_release(family.name, release) is None
    assert select_by_release(family, release) is select_by_release(family, like)


@each_family
def test_a_release_before_the_first_variant_points_to_none(family: Family) -> None:
    assert select_by_release(family, "4.43.4") is None
    assert not has_begun(family, "4.43.4")


@each_family
def test_a_family_begins_with_the_first_release_that_was_verified(family: Family) -> None:
    releases = sorted(
        (Version(each) for _, _, shape in shapes_of(family.name) for each in shape["releases"]), key=lambda each: each
    )
    first = first_release_of(family)
    assert Version(first) == releases[0]
    assert first == family.first_release or releases[0].micro > 0
    assert has_begun(family, first)
    assert has_begun(family, f"{first}+cu118")
    assert Version(family.first_release).release == releases[0].release[:2]
    if family.first_release != OLDEST_RELEASE:
        assert not has_begun(family, OLDEST_RELEASE)
        assert first in why_not_begun(family, OLDEST_RELEASE)


@each_family
def test_a_family_of_a_template_has_its_variants_from_its_own_first_release_on(family: Family) -> None:
    if family.template is None:
        assert not family.forms
        assert not family.prefix
        return
    names = (info.name for info in pkgutil.iter_modules([str(PATCHERS / family.template)]))
    of_template = [Version(name[1:].replace("_", ".")) for name in names if re.fullmatch(r"v\d+_\d+", name)]
    own = [Version(variant.first_release) for variant in family.variants]
    assert {each for each in of_template if each > Version(family.first_release)} <= set(own)
    if min(of_template) > own[0]:
        # What is older than the template is the family's own.
        assert (PATCHERS / family.name / f"{family.variants[0].name}.py").is_file()


def test_folders_are_families_or_templates() -> None:
    folders = {info.name for info in pkgutil.iter_modules([str(PATCHERS)]) if info.ispkg}
    assert folders == set(FAMILIES) | {family.template for family in FAMILIES.values() if family.template is not None}
    assert all(FAMILIES[name].name == name for name in FAMILIES)
    assert "llama_like" not in FAMILIES


def test_a_description_is_read_when_it_is_asked_for() -> None:
    code = (
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from mishformer_lens.patchers import FAMILIES\n"
        "assert 'llama' in FAMILIES and len(FAMILIES) == len(list(FAMILIES))\n"
        "assert 'mishformer_lens.patchers.llama' not in sys.modules\n"
        "assert FAMILIES['llama'].name == 'llama' and FAMILIES.get('lama') is None\n"
        "assert 'mishformer_lens.patchers.gpt2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PATCHERS.parents[1])


def test_the_parts_of_the_drop_in_are_those_of_the_description() -> None:
    for family in FAMILIES.values():
        drop_in, components = family.drop_in, family.components
        if drop_in is None:
            continue
        assert (drop_in.pos_embed is not None) == family.learned_positions
        # GPT-J's configuration says how many numbers are rotated, and has one base.
        rotary = drop_in.rotary is not None or "rotary_dim" in drop_in.config
        assert rotary == family.attention.rotary
        assert drop_in.output.startswith(f"{components['attn']}.")
        assert isinstance(drop_in.qkv, str) == (family.attention.qkv_layout is not None)
        assert all(name.startswith(components["mlp"]) for name in (drop_in.mlp_in, drop_in.mlp_out))
        assert drop_in.mlp_gate is None or family.mlp.gated
