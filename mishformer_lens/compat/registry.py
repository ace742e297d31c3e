"""The releases of transformers in a package index, and single files out of their wheels, without installing them."""

import contextlib
import dataclasses
import hashlib
import logging
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    NoSuchProjectError,
    ProjectPage,
    PyPISimple,
    UnsupportedRepoVersionError,
)
from remotezip import RangeNotSupported, RemoteIOError, RemoteZip, RemoteZipError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from mishformer_lens.compat.archives import read_member
from mishformer_lens.compat.cache import SourceCache
from mishformer_lens.compat.pip_settings import PipSettings
from mishformer_lens.errors import ArchiveError, RegistryError, SourceFileMissingError

PROJECT = "transformers"

MAX_WHEEL_BYTES = 256 * 2**20
"""Twenty times the largest wheel of transformers so far; a download is given up beyond it."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One release in an index.

    Attributes:
        release: its version number.
        url: where its wheel is.
        sha256: the wheel's hash as the index gives it; empty if it gives none.
        yanked: why the release was withdrawn; None if it was not.
        index: the index that it was found in.
    """

    release: str
    url: str
    sha256: str
    yanked: str | None
    index: str

    @property
    def key(self) -> str:
        """What the files of this wheel are kept under: another wheel of the same release is another key."""
        return self.sha256 or self.url


class RegistryClient:
    """Asks the package indexes that pip is set to use.

    Args:
        settings: pip's settings.
        cache: where a wheel is put while it is read, if the server does not give parts of it.

    Raises:
        RegistryError: the certificate that pip is set to trust is not there.
    """

    def __init__(self, settings: PipSettings, cache: SourceCache) -> None:
        self._settings = settings
        self._cache = cache
        self._session = requests.Session()
        if settings.certificate:
            if not Path(settings.certificate).exists():
                raise RegistryError(
                    f"the certificate {settings.certificate} that pip is set to trust is not there. "
                    "Check the setting: pip config get global.cert"
                )
            self._session.verify = settings.certificate
        retry = Retry(settings.retries, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    @property
    def indexes(self) -> tuple[str, ...]:
        """The indexes, the main one first."""
        if not self._settings.use_indexes:
            return ()
        return (self._settings.index_url or PYPI_SIMPLE_ENDPOINT, *self._settings.extra_index_urls)

    def wheels(self) -> list[Wheel]:
        """Every release that has a wheel, as the first place that has it describes it.

        Raises:
            RegistryError: an index cannot be reached, or no place knows the project.
        """
        found: dict[str, Wheel] = {}
        places = [self._linked(link) for link in self._settings.find_links]
        places += [self._indexed(index) for index in self.indexes]
        for wheel in (wheel for place in places for wheel in place):
            found.setdefault(wheel.release, wheel)
        if not found:
            looked = ", ".join(_shown(place) for place in (*self._settings.find_links, *self.indexes)) or "nowhere"
            raise RegistryError(f"no release of {PROJECT} was found (looked in: {looked}). See: pip config list")
        return list(found.values())

    def read(self, wheel: Wheel, paths: Sequence[str]) -> dict[str, str | None]:
        """The texts of files in a wheel; None for each that it lacks.

        Only the parts of the wheel that are needed are fetched, where the server allows it; else all of it is fetched
        and dropped again.

        Raises:
            RegistryError: the server cannot be reached.
            ArchiveError: the wheel is damaged, or holds something that must not be unpacked.
        """
        where = f"the wheel of {PROJECT} {wheel.release}"
        try:
            with self._open(wheel) as archive:
                return {path: _read_or_none(archive, path, where) for path in paths}
        except (requests.RequestException, RemoteIOError) as error:
            raise _unreachable(wheel.index, error) from error
        except (zipfile.BadZipFile, RemoteZipError, EOFError) as error:
            raise ArchiveError(
                f"{where} is damaged ({error}). Nothing of it was kept. Try again; if it stays so, the index "
                f"{_shown(wheel.index)} holds a broken file."
            ) from error

    @contextlib.contextmanager
    def _open(self, wheel: Wheel) -> Iterator[zipfile.ZipFile]:
        local = _local_path(wheel.url)
        if local is not None:
            with zipfile.ZipFile(local) as archive:
                yield archive
            return
        auth = _credentials_for(wheel)
        try:
            # A megabyte from the end holds the directory of such a wheel: one request instead of two.
            remote = RemoteZip(
                wheel.url, 2**20, session=self._session, timeout=self._settings.timeout, auth=auth, allow_redirects=True
            )
        except (RangeNotSupported, RemoteIOError) as error:
            _log.debug("no range requests for %s: %s", wheel.release, error)
        else:
            with remote:
                yield remote
            return
        with self._cache.scratch_file() as scratch:
            self._download(wheel, auth, scratch)
            with zipfile.ZipFile(scratch) as archive:
                yield archive

    def _download(self, wheel: Wheel, auth: tuple[str, str] | None, target: Path) -> None:
        digest, size = hashlib.sha256(), 0
        with (
            self._session.get(wheel.url, stream=True, timeout=self._settings.timeout, auth=auth) as response,
            target.open("wb") as file,
        ):
            response.raise_for_status()
            for chunk in response.iter_content(2**18):
                size += len(chunk)
                if size > MAX_WHEEL_BYTES:
                    raise ArchiveError(
                        f"the wheel of {PROJECT} {wheel.release} is larger than {MAX_WHEEL_BYTES} bytes: the download "
                        f"was given up. Check what the index {_shown(wheel.index)} serves."
                    )
                digest.update(chunk)
                file.write(chunk)
        if wheel.sha256 and digest.hexdigest() != wheel.sha256:
            raise ArchiveError(
                f"the wheel of {PROJECT} {wheel.release} arrived with another hash than the index "
                f"{_shown(wheel.index)} gives ({size} bytes). Nothing of it was kept. Try again."
            )

    def _indexed(self, index: str) -> list[Wheel]:
        local = _local_path(index)
        if local is not None:
            return _in_folder(local / PROJECT, index)
        try:
            client = PyPISimple(index, session=self._session)
            return _wheels_of(client.get_project_page(PROJECT, timeout=self._settings.timeout), index)
        except NoSuchProjectError:
            return []
        except (requests.JSONDecodeError, UnsupportedRepoVersionError) as error:
            raise _no_index(index, error) from error
        except requests.RequestException as error:
            raise _unreachable(index, error) from error
        except ValueError as error:
            raise _no_index(index, error) from error

    def _linked(self, link: str) -> list[Wheel]:
        local = _local_path(link) or (None if "://" in link else Path(link).expanduser())
        if local is not None:
            return _in_folder(local, link)
        try:
            response = self._session.get(link, timeout=self._settings.timeout)
            response.raise_for_status()
        except requests.RequestException as error:
            raise _unreachable(link, error) from error
        return _wheels_of(ProjectPage.from_html(PROJECT, response.text, base_url=link), link)


def _wheels_of(page: ProjectPage, index: str) -> list[Wheel]:
    return [
        Wheel(
            release,
            package.url,
            (package.digests or {}).get("sha256", ""),
            (package.yanked_reason or "no reason given") if package.is_yanked else None,
            index,
        )
        for package in page.packages
        if (release := _release_of(package.filename)) is not None
    ]


def _in_folder(folder: Path, index: str) -> list[Wheel]:
    """The wheels of a local index, by its page, or else those that lie in the folder."""
    page = folder if folder.is_file() else folder / "index.html"
    if page.is_file():
        return _wheels_of(ProjectPage.from_html(PROJECT, page.read_text("utf-8"), base_url=page.as_uri()), index)
    return [
        Wheel(release, file.absolute().as_uri(), "", None, index)
        for file in sorted(folder.glob(f"{PROJECT}-*.whl"))
        if (release := _release_of(file.name)) is not None
    ]


def _release_of(filename: str) -> str | None:
    """The version number in a wheel's name; None for an archive of sources, and for other projects."""
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    return str(version) if name == PROJECT else None


def _read_or_none(archive: zipfile.ZipFile, path: str, where: str) -> str | None:
    try:
        return read_member(archive, path, where)
    except SourceFileMissingError:
        return None


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(unquote(parts.path))) if parts.scheme == "file" else None


def _credentials_for(wheel: Wheel) -> tuple[str, str] | None:
    """The index's user and password, for files on the index's own host only."""
    index, file = urlsplit(wheel.index), urlsplit(wheel.url)
    if index.username and index.hostname == file.hostname:
        return unquote(index.username), unquote(index.password or "")
    return None


def _shown(url: str) -> str:
    """An address without the user and password that it may carry."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _unreachable(place: str, error: Exception) -> RegistryError:
    return RegistryError(
        f"{_shown(place)} cannot be reached ({_reason(error)}). Check the network and pip's settings (pip config list),"
        " or give a wheel or a folder with --source."
    )


def _no_index(place: str, error: Exception) -> RegistryError:
    first_line = str(error).partition("\n")[0]
    return RegistryError(
        f"{_shown(place)} answers with something that is not a package index ({first_line}). "
        "Check the settings of pip: pip config list"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code}"
    return type(error).__name__
