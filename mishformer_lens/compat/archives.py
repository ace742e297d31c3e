"""Read single files out of wheels and folders. Nothing is unpacked or imported."""

import re
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from mishformer_lens.errors import ArchiveError, SourceFileMissingError
from mishformer_lens.patchers.installed import decode, find_package, installed_release, version_in_source

MAX_SOURCE_BYTES = 4 * 2**20
"""No modeling file is nearly as large; whatever claims to be is not unpacked."""

# What zipfile raises for an archive that is damaged or encrypted.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)

_DIST_INFO = re.compile(r"transformers-([^/]+)\.dist-info/METADATA")


class LocalSource(Protocol):
    """A wheel or a folder that holds a release of transformers."""

    @property
    def release(self) -> str:
        """The version number that it says it has."""

    def read(self, path: str) -> str:
        """The text of one file, by its path in the wheel, such as ``transformers/models/gpt2/modeling_gpt2.py``.

        Raises:
            SourceFileMissingError: there is no such file.
            ArchiveError: it is damaged, or too large to be a source.
        """


def open_local(path: str | Path) -> LocalSource:
    """A wheel; or a folder: an installed or unpacked package, a folder that holds it, or a checkout; or ``installed``.

    Raises:
        SourceFileMissingError: there is nothing at ``path``, or no transformers in it.
        ArchiveError: the file is no whole wheel.
        TransformersNotInstalledError: ``installed`` was asked for, and nothing is.
    """
    if str(path) == "installed":
        return FolderSource(_installed_folder())
    path = Path(path)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise SourceFileMissingError(
            f"there is nothing at {path}. Give a wheel, a folder with transformers in it, a checkout, or `installed`."
        )
    return WheelSource(path)


def _installed_folder() -> Path:
    installed_release()
    spec = find_package("transformers")
    folders = (spec and spec.submodule_search_locations) or ()
    return Path(next(iter(folders), "transformers"))


class FolderSource:
    """transformers in a folder."""

    def __init__(self, folder: Path) -> None:
        candidates = (folder / "src", folder, folder.parent if folder.name == "transformers" else folder)
        root = next((each for each in candidates if (each / "transformers" / "__init__.py").is_file()), None)
        if root is None:
            raise SourceFileMissingError(
                f"there is no transformers in the folder {folder}. Give the folder of the package, the one that holds "
                "it, or a checkout of its repository (with src/transformers)."
            )
        self._root = root

    @property
    def release(self) -> str:
        found = version_in_source(self.read("transformers/__init__.py"))
        if found is None:
            raise SourceFileMissingError(
                f"{self._root}/transformers/__init__.py does not say its version, so the sources beside it cannot be "
                "judged. Give the folder of a complete transformers."
            )
        return found

    def read(self, path: str) -> str:
        file = self._root / path
        if not file.is_file():
            raise SourceFileMissingError(_missing(path, str(self._root)))
        if file.stat().st_size > MAX_SOURCE_BYTES:
            raise ArchiveError(_too_large(path, str(self._root), file.stat().st_size))
        try:
            return decode(file.read_bytes())
        except (UnicodeDecodeError, SyntaxError) as error:
            raise ArchiveError(f"{file} is not text in its encoding ({error}): it is damaged.") from error


class WheelSource:
    """transformers in a wheel."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open():
            pass

    @property
    def release(self) -> str:
        with self._open() as archive:
            found = [match for name in archive.namelist() if (match := _DIST_INFO.fullmatch(name))]
        if not found:
            raise SourceFileMissingError(
                f"{self._path} is not a wheel of transformers: it has no transformers-<version>.dist-info. "
                "Download one with: pip download --no-deps transformers"
            )
        return found[0].group(1)

    def read(self, path: str) -> str:
        with self._open() as archive:
            return read_member(archive, path, str(self._path))

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ArchiveError(
                f"{self._path} is not a whole wheel ({error}). Download it again: pip download --no-deps transformers"
            ) from error


def read_member(archive: zipfile.ZipFile, path: str, where: str) -> str:
    """The text of one member of an archive.

    Raises:
        SourceFileMissingError: there is no such member.
        ArchiveError: it is damaged or encrypted, or says that it is larger than a source can be.
    """
    try:
        info = archive.getinfo(path)
    except KeyError:
        raise SourceFileMissingError(_missing(path, where)) from None
    if info.file_size > MAX_SOURCE_BYTES:
        raise ArchiveError(_too_large(path, where, info.file_size))
    try:
        # A member that unpacks to more than it says is cut off there, and fails its checksum.
        return decode(archive.read(info))
    except (*_DAMAGED, UnicodeDecodeError, SyntaxError) as error:
        raise ArchiveError(
            f"{path} in {where} cannot be unpacked ({error}): the wheel is damaged. Get it again from a package index."
        ) from error


def _missing(path: str, where: str) -> str:
    return (
        f"{where} has no {path}: the release lacks this model, or keeps it elsewhere. Give another release or module."
    )


def _too_large(path: str, where: str, size: int) -> str:
    return (
        f"{path} in {where} would unpack to {size} bytes, and a source has at most {MAX_SOURCE_BYTES}: it was left "
        "alone. Get the wheel again from a package index that you trust."
    )
