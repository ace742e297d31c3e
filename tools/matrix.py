"""Turns `nox --list --json` on standard input into the job matrix of a workflow, as `sessions=<JSON>`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

DEFAULT_PYTHON = "3.11"
CHECKS = ("lint", "types", "unit", "demo", "minimums", "coverage")
CELLS = ("grid", "drop-in")


def jobs(sessions: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """One job for every check and every cell, of the hook suite on each Python that the grid has it for."""
    return [
        {"session": session["session"], "python": session["python"] or DEFAULT_PYTHON}
        for session in sessions
        if session["name"] in CHECKS or any(tag.startswith(CELLS) for tag in session["tags"])
    ]


if __name__ == "__main__":
    print(f"sessions={json.dumps(jobs(json.load(sys.stdin)))}")
