"""Turns `nox --list --json` on standard input into the job matrix of a workflow, as `sessions=<JSON>`.

Without arguments these are the checks and the cells that every change has to pass; with arguments, the sessions that
have one of them as a tag.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

DEFAULT_PYTHON = "3.11"
CHECKS = ("lint", "types", "unit", "demo", "minimums", "coverage")
CELLS = ("grid", "drop-in")


def jobs(
    sessions: Iterable[dict[str, Any]], checks: tuple[str, ...] = CHECKS, cells: tuple[str, ...] = CELLS
) -> list[dict[str, str]]:
    """One job for every check and every cell, of the hook suite on each Python that the grid has it for.

    `checks`: names of sessions. `cells`: beginnings of tags.
    """
    return [
        {"session": session["session"], "python": session["python"] or DEFAULT_PYTHON}
        for session in sessions
        if session["name"] in checks or any(tag.startswith(cells) for tag in session["tags"])
    ]


if __name__ == "__main__":
    listed = json.load(sys.stdin)
    wanted = jobs(listed, checks=(), cells=tuple(sys.argv[1:])) if sys.argv[1:] else jobs(listed)
    print(f"sessions={json.dumps(wanted)}")
