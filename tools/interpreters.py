"""Finds the Pythons that pyenv keeps out of the way."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from pathlib import Path


def installed_in_pyenv(root: Path, pythons: Iterable[str]) -> list[str]:
    """The newest version under `root` of each of `pythons`, such as "3.12.1" for "3.12"."""
    versions = [path.name for path in (root / "versions").glob("3.*") if path.name.replace(".", "").isdigit()]
    newest_first = sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    found = (next((v for v in newest_first if v.startswith(f"{python}.")), None) for python in pythons)
    return [version for version in found if version]


def select_in_pyenv(environment: MutableMapping[str, str], pythons: Iterable[str]) -> None:
    """Makes pyenv's `python3.12` and the like start, behind the versions that `environment` selects already.

    pyenv puts a command on the PATH for every version it has, and lets only the selected ones start.
    """
    root = environment.get("PYENV_ROOT")
    if root:
        selected = [version for version in environment.get("PYENV_VERSION", "").split(":") if version]
        others = [version for version in installed_in_pyenv(Path(root), pythons) if version not in selected]
        if others:
            environment["PYENV_VERSION"] = ":".join(selected + others)
