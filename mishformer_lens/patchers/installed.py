"""What is installed here: release numbers, and the source of modules as Python reads it. Nothing is imported.

A number says what somebody packed; the source says what runs. Numbers may be missing, odd or stale, so nothing here
fails for want of one.
"""

import dataclasses
import importlib.machinery
import importlib.metadata
import importlib.util
import re
import types
from pathlib import Path
from typing import Protocol, runtime_checkable

from mishformer_lens.errors import FamilyNotInReleaseError, SourceUnreadableError, TransformersNotInstalledError
from mishformer_lens.patchers.family import Family

UNKNOWN_RELEASE = "(unknown version)"
"""Stands for a number that is not there or cannot be read."""

_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a module.

    Attributes:
        path: where it was read; inside an archive, no path that the file system knows.
        text: as Python reads it: decoded by its byte order mark or its declared encoding, and with ``\\n`` at the ends
            of lines.
    """

    path: str
    text: str


def installed_release() -> str:
    """The version of transformers here: what the package says of itself, else its metadata.

    The metadata may be that of another installation, or missing.

    Returns:
        The number as it stands there, PEP 440 or not; :data:`UNKNOWN_RELEASE` where there is none.

    Raises:
        TransformersNotInstalledError: there is neither package nor metadata.
    """
    spec = find_package("transformers")
    found = (spec and _own_version(spec)) or version_in_metadata("transformers")
    if found is not None:
        return found
    if spec is not None and spec.origin is not None:
        return UNKNOWN_RELEASE
    raise TransformersNotInstalledError(
        "transformers is not installed in this environment, and its source is what gets patched. "
        "Install a release from 4.44 on: pip install transformers"
    )


def version_in_metadata(package: str) -> str | None:
    """The version of a distribution by its metadata; None where there is no metadata.

    :data:`UNKNOWN_RELEASE` where it has none, or cannot be read.
    """
    try:
        return importlib.metadata.version(package) or UNKNOWN_RELEASE
    except importlib.metadata.PackageNotFoundError:
        return None
    except (KeyError, ValueError, OSError, DeprecationWarning):
        # Without a number Python 3.11 says None, 3.12 warns and later ones raise KeyError; the others are damage.
        return UNKNOWN_RELEASE


def version_in_source(text: str) -> str | None:
    """The version that the source of a package's ``__init__.py`` gives it."""
    found = _VERSION.search(text)
    return found and found.group(1)


def find_package(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a top-level package would be imported from."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # what is imported under this name was made by hand
        return None


def _own_version(spec: importlib.machinery.ModuleSpec) -> str | None:
    try:
        return version_in_source(_read(spec.name, spec).text)
    except SourceUnreadableError:
        return None


def installed_source(family: Family) -> Source:
    """The source that the installed transformers would import for ``family``. Nothing of transformers is imported.

    Raises:
        TransformersNotInstalledError: transformers is missing, or only its metadata is there.
        FamilyNotInReleaseError: it is there, but not this family's module.
        SourceUnreadableError: the module is there, but its source is not, or is damaged.
    """
    release = installed_release()
    package = find_package("transformers")
    inside = family.source_path.split("/")[1:-1]
    # A folder without an __init__.py has no origin: what an uninstallation left behind.
    if package is None or package.origin is None:
        raise TransformersNotInstalledError(
            f"there is metadata of transformers {release}, but not the package. Reinstall it: "
            "pip install --force-reinstall --no-deps transformers"
        )
    folders = [str(Path(folder, *inside)) for folder in package.submodule_search_locations or ()]
    spec = importlib.machinery.PathFinder.find_spec(family.module_name, folders)
    if spec is None:
        raise FamilyNotInReleaseError(
            f"the installed transformers {release} has no {family.source_path}; {family.name} can be hooked from "
            f'{family.first_release} on. Upgrade it: pip install "transformers>={family.first_release}"; '
            "where it is as new already, reinstall it: pip install --force-reinstall --no-deps transformers"
        )
    return _read(family.module_name, spec)


def source_of(module: types.ModuleType) -> Source:
    """The source of an imported module, as it is to be read now.

    Raises:
        SourceUnreadableError: there is none (compiled files alone, a frozen program), or it is damaged.
    """
    return _read(module.__name__, module.__spec__, vars(module).get("__file__"))


def decode(source: bytes) -> str:
    """The text of a Python source, by its byte order mark or declared encoding, with ``\\n`` at the ends of lines.

    Raises:
        UnicodeDecodeError, SyntaxError: it is not in its encoding, or that is none that Python knows.
    """
    return importlib.util.decode_source(source)


@runtime_checkable
class _ReadsFiles(Protocol):
    def get_filename(self, name: str) -> str: ...

    def get_data(self, path: str) -> bytes: ...


@runtime_checkable
class _KnowsSource(Protocol):
    def get_source(self, fullname: str) -> str | None: ...


def _read(name: str, spec: importlib.machinery.ModuleSpec | None, file: str | None = None) -> Source:
    path = (spec and spec.origin) or file or ""
    try:
        text = _text(path, spec)
    except (ImportError, OSError, UnicodeError, SyntaxError) as error:
        raise _unreadable(name, path, f"reading it ended in {type(error).__name__}: {error}") from error
    if text is None:
        raise _unreadable(name, path, "there are compiled files alone, or none")
    return Source(path, text)


def _text(path: str, spec: importlib.machinery.ModuleSpec | None) -> str | None:
    """The text of a module: of its file, else what its loader knows. None: there is no source."""
    if path.endswith(".py") and Path(path).is_file():
        return decode(Path(path).read_bytes())
    loader: object = spec and spec.loader
    if spec is not None and isinstance(loader, _ReadsFiles) and loader.get_filename(spec.name).endswith(".py"):
        return decode(loader.get_data(loader.get_filename(spec.name)))
    if spec is not None and isinstance(loader, _KnowsSource):
        return loader.get_source(spec.name)
    return None


def _unreadable(name: str, path: str, why: str) -> SourceUnreadableError:
    return SourceUnreadableError(
        f"the source of {name} cannot be read{f' at {path}' if path else ''}, and it is what gets patched: {why}. "
        "Install transformers with its .py files (pip install --force-reinstall --no-deps transformers); a frozen "
        "program must be built with the sources of its modules."
    )
