"""``mishformer-lens compat``: what works with which release, read from sources and from recorded runs."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mishformer_lens.cli import output
from mishformer_lens.errors import SourceFileMissingError
from mishformer_lens.patchers import FAMILIES, Family
from mishformer_lens.patchers.releases import has_begun, why_not_begun
from mishformer_lens.suggestions import did_you_mean

if TYPE_CHECKING:
    from mishformer_lens.compat.draft import Draft
    from mishformer_lens.compat.members import Difference
    from mishformer_lens.compat.scan import Row, Target
    from mishformer_lens.compat.sources import Registry

SINCE = "4.44"


class FamilyName(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on, and not before
    """The name of a family that this library has."""

    name = "family"

    def convert(self, value: str | Family, param: click.Parameter | None, ctx: click.Context | None) -> Family:
        if isinstance(value, Family):
            return value
        if value not in FAMILIES:
            known = ", ".join(FAMILIES)
            self.fail(f"there is no family {value!r}. {did_you_mean(value, FAMILIES)}Known are: {known}", param, ctx)
        return FAMILIES[value]


offline_option = click.option("--offline", is_flag=True, help="Use what is in the cache; never ask the package index.")
source_option = click.option(
    "--source", metavar="PATH", help="Read this wheel, folder or checkout, or the `installed` package, not the index."
)


@click.group()
def compat() -> None:
    """What works with which release of transformers."""


@compat.command()
@click.option("--family", "families", type=FamilyName(), multiple=True, help="Only this family; may be given again.")
@click.option("--since", help=f"The first release; {SINCE} if not given.")
@click.option("--until", help="The last release; the newest if not given.")
@click.option("--release", "names", multiple=True, help="Only this release; may be given again.")
@source_option
@click.option(
    "--patches",
    type=click.Path(path_type=Path),
    help="Scan for your own (before, after) pairs, in JSON or Python, instead.",
)
@click.option("--module", help="The module that --patches is for, if the file does not say.")
@offline_option
@output.json_option
def scan(
    families: tuple[Family, ...],
    since: str | None,
    until: str | None,
    names: tuple[str, ...],
    source: str | None,
    patches: Path | None,
    module: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Say for each release and family which variant serves it, and whether that is verified.

    Exit code 0: all is verified (your own patches: all apply); 1: something fails; 3: nothing fails, but something only
    applies; 2: the sources could not be read. A family that a release does not have yet is absent, which is no failure.
    """
    from mishformer_lens.compat.scan import scan as scan_sources

    targets = _targets(families, patches, module)
    if source is not None and (names or since or until):
        raise click.UsageError("a source has a release of its own: leave --release, --since and --until out")
    releases, read = _source(source) if source is not None else _registry_source(targets, names, since, until, offline)
    rows = list(scan_sources(targets, output.tracked(releases, "Reading releases"), read))
    if as_json:
        output.write_json(rows)
    else:
        _print_rows(rows)
    statuses = {row.status for row in rows}
    if "fails" in statuses:
        output.leave(output.FOUND)
    if "applies" in statuses and patches is None:
        output.leave(output.UNVERIFIED)


@compat.command()
@click.argument("family", type=FamilyName())
@click.argument("first", metavar="OLDER")
@click.argument("second", metavar="NEWER")
@offline_option
@output.json_option
def diff(family: Family, first: str, second: str, offline: bool, as_json: bool) -> None:
    """Show how the members that edits touch changed between two releases, and which edits still hold.

    Exit code 0: every edit of the first release's variant holds in the second, or one of the two does not have the
    family yet; 1: some do not.
    """
    from mishformer_lens.compat.members import Difference, compare
    from mishformer_lens.compat.sources import read_source

    registry = _registry(offline)
    numbers = [registry.find(each) for each in (first, second)]
    sources, absent = [], ""
    for number in numbers:
        try:
            sources.append((number, read_source(family, number, registry)))
        except SourceFileMissingError as error:
            absent = absent or _why_absent(family, number, error)
    nothing = Difference(family.name, numbers[0], numbers[1], "", absent=absent)
    difference = nothing if absent else compare(family, sources[0], sources[1])
    if as_json:
        output.write_json(difference)
    else:
        _print_difference(difference)
    if not all(anchor.holds for anchor in difference.anchors):
        output.leave(output.FOUND)


@compat.command()
@click.argument("family", type=FamilyName())
@click.argument("release", required=False)
@source_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the draft to this file, which must not exist.")
@offline_option
@output.json_option
def draft(
    family: Family, release: str | None, source: str | None, out: Path | None, offline: bool, as_json: bool
) -> None:
    """Draft the variant file for a release whose anchors are missing, ready to be finished by hand.

    Exit code 0: no draft is needed, since a variant fits or the release does not have the family yet; 1: a draft was
    made.
    """
    from mishformer_lens.compat.draft import Draft, draft_variant

    if (release is None) == (source is None):
        raise click.UsageError("give a release, or a --source")
    names = [release] if release is not None else []
    releases, read = _source(source) if source is not None else _registry_source([], names, None, None, offline)
    try:
        made = draft_variant(family, releases[0], read(releases[0], family.source_path))
    except SourceFileMissingError as error:
        made = Draft(family.name, releases[0], absent=_why_absent(family, releases[0], error))
    if out is not None and made.open:
        _write_new(out, made.text)
    if as_json:
        output.write_json(made)
    else:
        _print_draft(made, out)
    if made.open:
        output.leave(output.FOUND)


folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default="compat",
    show_default=True,
    help="The folder of the repository with grid.toml and outcomes/.",
)


@compat.command()
@click.option("--format", "kind", type=click.Choice(["md", "html", "json"]), default="md", show_default=True)
@click.option("--write", is_flag=True, help="Write README.md, index.html and compatibility.json to the folder instead.")
@folder_option
@output.json_option
def table(kind: str, write: bool, folder: Path, as_json: bool) -> None:
    """Show the compatibility table that the recorded outcomes give. --json is short for --format json."""
    from mishformer_lens.compat.tables import FILES, as_html, as_json_text, as_markdown, build_table

    built = build_table(folder)
    if write:
        for name, render in FILES.items():
            (folder / name).write_text(render(built), encoding="utf-8")
    else:
        render = {"md": as_markdown, "html": as_html, "json": as_json_text}["json" if as_json else kind]
        output.write(render(built).rstrip("\n"))


@compat.command()
@folder_option
@output.json_option
def check(folder: Path, as_json: bool) -> None:
    """Check that the committed tables are what the recorded outcomes say.

    Exit code 0: they are; 1: they are not; 2: an outcome is damaged or was changed by hand.
    """
    from mishformer_lens.compat.tables import build_table, stale_files

    built = build_table(folder)
    stale = stale_files(folder, built)
    if as_json:
        output.write_json({"stale_files": stale, "stale_cells": [cell.name for cell in built.cells if cell.stale]})
    elif not stale:
        output.write(f"the tables are what the recorded outcomes say ({len(built.records)})")
    for name, cells in stale.items() if not as_json else ():
        output.write(f"{folder / name} is not what the outcomes say: mishformer-lens compat table --write")
        for cell in cells:
            output.write(f"  {cell}")
    if stale:
        output.leave(output.FOUND)


def _why_absent(family: Family, release: str, error: SourceFileMissingError) -> str:
    """Why a release has no source of a family; where it should have one, the error is raised again."""
    if has_begun(family, release):
        raise error
    return why_not_begun(family, release)


def _targets(families: Sequence[Family], patches: Path | None, module: str | None) -> "list[Target]":
    from mishformer_lens.compat.patches import read_patches
    from mishformer_lens.compat.scan import FamilyTarget, PatchesTarget

    if patches is not None:
        if families:
            raise click.UsageError("--patches and --family exclude each other")
        return [PatchesTarget(each) for each in read_patches(patches, module)]
    return [FamilyTarget(family) for family in families or FAMILIES.values()]


def _registry(offline: bool) -> "Registry":
    from mishformer_lens.compat.sources import Registry

    return Registry(offline=offline)


def _registry_source(
    targets: "Sequence[Target]", names: Sequence[str], since: str | None, until: str | None, offline: bool
) -> tuple[list[str], Callable[[str, str], str]]:
    registry = _registry(offline)
    if names and (since or until):
        raise click.UsageError("--release excludes --since and --until")
    releases = [registry.find(name) for name in names] if names else registry.releases(since or SINCE, until)
    paths = [target.path for target in targets]
    return releases, lambda release, path: registry.read(release, path, also=paths)


def _source(place: str) -> tuple[list[str], Callable[[str, str], str]]:
    from mishformer_lens.compat.archives import open_local

    opened = open_local(place)
    return [opened.release], lambda _, path: opened.read(path)


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"the draft cannot be written to {path}: {error.strerror}") from error


def _print_rows(rows: "Sequence[Row]") -> None:
    console = output.console()
    table = output.table("family", "releases", "variant", "status", "edits that fail")
    families = dict.fromkeys(row.family for row in rows)
    in_order = (row for family in families for row in rows if row.family == family)
    # Neighbouring releases of which the same is to be said share a line.
    for (family, variant, status, failing), group in itertools.groupby(in_order, _said):
        releases = [row.release for row in group]
        shown = releases[0] if len(releases) == 1 else f"{releases[0]} to {releases[-1]}"
        table.add_row(family, shown, variant or "-", output.styled(status), failing)
    console.print(table)
    counts = Counter(row.status for row in rows)
    console.print(f"{len(rows)} sources: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    failing_rows = [row for row in rows if row.failures]
    if len({row.release for row in rows}) == 1:
        for row in failing_rows:
            for failure in row.failures:
                output.write(f"\n{row.family}: {failure.message}")
    elif failing_rows:
        console.print(f"What is missing, and what stands there instead: --release {failing_rows[0].release}")


def _said(row: "Row") -> tuple[str, str, str, str]:
    """What a line of the table says of a row, but for its release."""
    members = Counter(failure.member or "(no source)" for failure in row.failures)
    failing = ", ".join(f"{member} ({count})" if count > 1 else member for member, count in members.items())
    return row.family, row.variant, row.status, failing


def _print_difference(difference: "Difference") -> None:
    if difference.absent:
        output.write(f"there is nothing to compare: {difference.absent}")
        return
    console = output.console()
    members = output.table("member", "change")
    for member in difference.members:
        members.add_row(member.member, output.styled(member.change))
    console.print(members)
    for member in difference.members:
        if member.diff:
            _print_diff(member.diff)
    console.print(f"\nedits of {difference.family} {difference.variant} in {difference.second}:")
    anchors = output.table("member", "hold", "do not hold")
    for name in dict.fromkeys(anchor.member for anchor in difference.anchors):
        holds = [anchor.holds for anchor in difference.anchors if anchor.member == name]
        missing = len(holds) - sum(holds)
        anchors.add_row(name, str(sum(holds)), f"[red]{missing}[/]" if missing else "")
    console.print(anchors)
    for anchor in difference.anchors:
        if not anchor.holds:
            output.write(f"\n{anchor.message}")


def _print_diff(text: str) -> None:
    import sys

    if not sys.stdout.isatty():
        output.write("\n" + text)
        return
    from rich.syntax import Syntax

    output.console().print(Syntax(text, "diff", background_color="default", word_wrap=True))


def _print_draft(made: "Draft", out: Path | None) -> None:
    if made.absent:
        output.write(f"there is nothing to draft from: {made.absent}")
    elif not made.open:
        output.write(
            f"no draft is needed: every edit of {made.family} {made.variant} holds in the source of {made.release}. "
            "Verify it with the suite, and add its fingerprint."
        )
    elif out is None:
        output.write(made.text)
    else:
        name = f"v{'_'.join(made.release.split('.')[:2])}"
        template = FAMILIES[made.family].template
        moved = "" if template is None else f"; where all its families moved alike, make a {template}/{name}.py of it"
        output.write(
            f"{out}: {made.holding} edits of {made.variant} hold, {len(made.open)} are to be written. Finish it as "
            f"mishformer_lens/patchers/{made.family}/{name}.py{moved}"
        )
