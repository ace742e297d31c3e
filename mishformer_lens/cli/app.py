"""The commands, as thin as they can be: what they do is done in ``compat`` and ``demo``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mishformer_lens import __version__
from mishformer_lens.cli import output
from mishformer_lens.cli.compat import compat
from mishformer_lens.cli.demo import demo
from mishformer_lens.errors import MishformerLensError

if TYPE_CHECKING:
    from mishformer_lens.compat.doctor import Report


@click.group()
@click.version_option(__version__)
def app() -> None:
    """TransformerLens hook points in the source of the installed transformers."""


app.add_command(compat)
app.add_command(demo)


def run(arguments: Sequence[str]) -> None:
    """Run a command; what this library raises on purpose becomes one message and exit code 2."""
    try:
        app(args=list(arguments), prog_name="mishformer-lens")
    except MishformerLensError as error:
        output.fail(error, as_json="--json" in arguments)


@app.command()
@output.json_option
def doctor(as_json: bool) -> None:
    """Say what is installed, which variants serve it, and what is broken or not supported.

    Exit code 0: every family that the release has is verified and nothing is broken; 1: something is broken; 3:
    something is unverified.
    """
    from mishformer_lens.compat.doctor import examine

    report = examine()
    if as_json:
        output.write_json(report)
    else:
        _print_report(report)
    statuses = {family.status for family in report.families}
    if report.problems or statuses & {"fails", "unusable"}:
        output.leave(output.FOUND)
    if "applies" in statuses:
        output.leave(output.UNVERIFIED)


def _print_report(report: "Report") -> None:
    console = output.console()
    packages = output.table("package", "version")
    packages.add_row("Python", report.python)
    for package, version in report.packages.items():
        packages.add_row(package, version or "[red]not installed[/]")
    packages.add_row("CUDA", report.cuda)
    console.print(packages)
    families = output.table("family", "variant", "status", "why", "attention")
    for family in report.families:
        row = (family.family, family.variant or "-", output.styled(family.status), family.reason)
        families.add_row(*row, ", ".join(family.attention))
    console.print(families)
    missing = output.table("family", "not supported", "why")
    for family in report.families:
        for name, reason in family.unsupported.items():
            missing.add_row(family.family, name, reason)
    if missing.row_count:
        console.print(missing)
    for problem in report.problems:
        console.print(f"[red]problem:[/] {problem.found}\n  mend it with: {problem.command}", markup=True)
