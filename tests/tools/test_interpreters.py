"""Pythons that pyenv has but does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.interpreters import installed_in_pyenv, select_in_pyenv


@pytest.fixture
def pyenv(tmp_path: Path) -> Path:
    for version in ("2.7.18", "3.11.7", "3.12.1", "3.12.10", "3.13.0", "3.13-dev"):
        (tmp_path / "versions" / version).mkdir(parents=True)
    return tmp_path


def test_the_newest_patch_release_of_each_is_found(pyenv: Path) -> None:
    assert installed_in_pyenv(pyenv, ["3.11", "3.12", "3.14"]) == ["3.11.7", "3.12.10"]


def test_they_are_selected_in_order(pyenv: Path) -> None:
    environment = {"PYENV_ROOT": str(pyenv)}
    select_in_pyenv(environment, ["3.11", "3.12"])
    assert environment["PYENV_VERSION"] == "3.11.7:3.12.10"


def test_versions_that_somebody_selected_stay_first(pyenv: Path) -> None:
    environment = {"PYENV_ROOT": str(pyenv), "PYENV_VERSION": "3.13.0"}
    select_in_pyenv(environment, ["3.11", "3.12", "3.13"])
    assert environment["PYENV_VERSION"] == "3.13.0:3.11.7:3.12.10"


def test_without_pyenv_nothing_is_set() -> None:
    environment: dict[str, str] = {}
    select_in_pyenv(environment, ["3.11"])
    assert environment == {}
