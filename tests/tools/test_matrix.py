"""The job matrix."""

from __future__ import annotations

from typing import Any

from tools.matrix import jobs


def session(name: str, python: str | None, *tags: str) -> dict[str, Any]:
    return {"session": f"{name}-{python}" if python else name, "name": name, "python": python, "tags": list(tags)}


def test_cells_and_checks_become_jobs() -> None:
    listed = [session("test", "3.11", "grid"), session("test-3.12", "3.12", "grid-3.12"), session("lint", None)]
    listed += [session("drop_in", "3.11", "drop-in"), session("coverage", "3.11")]
    assert jobs(listed) == [
        {"session": "test-3.11", "python": "3.11"},
        {"session": "test-3.12-3.12", "python": "3.12"},
        {"session": "lint", "python": "3.11"},
        {"session": "drop_in-3.11", "python": "3.11"},
        {"session": "coverage-3.11", "python": "3.11"},
    ]


def test_what_needs_a_gpu_or_an_index_is_left_out() -> None:
    assert jobs([session("test_gpu", "3.11", "gpu"), session("update_grid", "3.11"), session("bench", "3.11")]) == []


def test_sessions_are_chosen_by_a_tag() -> None:
    listed = [session("test", "3.11", "grid"), session("lint", None), session("upstream", "3.11", "upstream")]
    assert jobs(listed, checks=(), cells=("upstream",)) == [{"session": "upstream-3.11", "python": "3.11"}]
