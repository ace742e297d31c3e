"""How commands print: tables for people, JSON for programs."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OK, FOUND, ERROR, UNVERIFIED = 0, 1, 2, 3
"""Exit codes, see :func:`mishformer_lens.cli.main`."""

STYLES = {
    "verified": "green",
    "applies": "yellow",
    "fails": "red",
    "unusable": "red",
    "absent": "dim",
    "same": "dim",
    "changed": "yellow",
    "added": "green",
    "removed": "red",
}

Item = TypeVar("Item")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
"""Every command has it."""


def leave(code: int) -> NoReturn:
    """End the command with this exit code."""
    click.get_current_context().exit(code)


def console() -> "Console":
    """Where tables go."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def table(*columns: str, title: str | None = None) -> "Table":
    """An empty table."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def styled(word: str) -> str:
    """A status in its colour."""
    return f"[{STYLES[word]}]{word}[/]"


def write(text: str) -> None:
    """Write plain text, whatever it holds."""
    sys.stdout.write(text + "\n")


def write_json(value: object) -> None:
    """Write a dataclass, or what is made of dataclasses, as JSON."""
    write(json.dumps(value, default=_as_plain, indent=1, ensure_ascii=False))


def _as_plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is nothing that a command prints")


def tracked(items: Sequence[Item], description: str) -> Iterable[Item]:
    """The items, with a progress bar where a person watches."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description, console=Console(stderr=True), transient=True)


def fail(error: Exception, as_json: bool) -> NoReturn:
    """Say what went wrong, and end the process."""
    if as_json:
        write_json({"error": type(error).__name__, "message": str(error)})
    sys.stderr.write(f"mishformer-lens: {error}\n")
    raise SystemExit(ERROR)
