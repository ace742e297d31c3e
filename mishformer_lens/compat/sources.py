"""The modeling sources of any release of transformers, fetched once and usable offline.

What is fetched is bound to the wheel's hash in the index, so that another index, or another wheel under the same
version number, is never answered for by what was fetched before.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from mishformer_lens.compat.cache import SourceCache
from mishformer_lens.compat.pip_settings import PipSettings, read_pip_settings
from mishformer_lens.errors import RegistryError, ReleaseNotFoundError, SourceFileMissingError
from mishformer_lens.patchers import FAMILIES, Family

if TYPE_CHECKING:
    from mishformer_lens.compat.registry import RegistryClient, Wheel

FRESH_FOR = 3600.0
"""Seconds for which a list of releases is taken from the cache without asking the index."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Listing:
    fetched_at: float
    wheels: dict[str, dict[str, Any]]

    def name_of(self, version: Version) -> str | None:
        """The number of this release as the index writes it, if it has the release."""
        return self._names.get(version)

    @functools.cached_property
    def _names(self) -> dict[Version, str]:
        # Of several ways to write one number, the first counts.
        return {Version(each): each for each in reversed(self.wheels)}

    @property
    def is_fresh(self) -> bool:
        return 0 <= time.time() - self.fetched_at < FRESH_FOR


class Registry:
    """The releases of transformers in the package index that pip is set to use, behind a cache.

    Args:
        cache: where sources are kept; the platform's cache folder by default.
        settings: pip's settings; those of this machine by default.
        offline: never ask the index; what is not in the cache is an error.
    """

    def __init__(
        self, cache: SourceCache | None = None, settings: PipSettings | None = None, offline: bool = False
    ) -> None:
        self._cache = cache or SourceCache()
        self._settings = settings or read_pip_settings()
        self._offline = offline

    def releases(self, since: str | None = None, until: str | None = None) -> list[str]:
        """Final releases that were not withdrawn, oldest first.

        Args:
            since: the first release; its patch releases count too. None: from the first one on.
            until: the last release; ``4.48`` includes 4.48.3. None: up to the newest.

        Raises:
            ReleaseNotFoundError: ``since`` or ``until`` is no version number.
            RegistryError: the index cannot be reached, and no list of releases is in the cache.
        """
        first, last = since and _version(since), until and _version(until)
        versions = [Version(release) for release, wheel in self._listing().wheels.items() if wheel["yanked"] is None]
        return [
            str(version)
            for version in sorted(versions)
            if not version.is_prerelease
            and (not first or version >= first)
            and (not last or version.release[: len(last.release)] <= last.release)
        ]

    def read(self, release: str, path: str, also: Iterable[str] = ()) -> str:
        """The text of a file in the wheel of a release.

        Args:
            path: the file's path in the wheel.
            also: paths that will be asked for next; they are fetched along.

        Raises:
            ReleaseNotFoundError: there is no such release, or it was withdrawn.
            SourceFileMissingError: the release has no such file.
            RegistryError: the index cannot be reached, and the file is not in the cache.
            ArchiveError: the wheel is damaged.
            CacheError: the cache cannot be written.
        """
        from_cache = self._wheel(release)
        files = self._cache.record("wheels", from_cache["key"]) or {}
        if path in files:
            text = self._kept(files, path)
            if files[path] is None or text is not None:
                return _require(text, release, path)
        if self._offline:
            raise RegistryError(
                f"{path} of transformers {release} is not in the cache, and the index must not be asked. "
                "Run the same command once without --offline."
            )
        # What the wheel is known to lack need not be looked for again.
        wanted = [each for each in dict.fromkeys([path, *also]) if each == path or files.get(each, "") is not None]
        missing = [each for each in wanted if self._kept(files, each) is None]
        fetched = self._client.read(_wheel_from(from_cache), missing)
        files |= {each: None if text is None else self._cache.add_text(text) for each, text in fetched.items()}
        self._cache.set_record("wheels", from_cache["key"], files)
        return _require(fetched[path], release, path)

    def find(self, release: str) -> str:
        """The number of a release as the index writes it: ``4.48`` is ``4.48.0``.

        Raises:
            ReleaseNotFoundError: there is no such release, or it was withdrawn.
            RegistryError: the index cannot be reached, and no list of releases is in the cache.
        """
        return str(self._wheel(release)["release"])

    def _kept(self, files: dict[str, Any], path: str) -> str | None:
        digest = files.get(path)
        return self._cache.text(digest) if isinstance(digest, str) else None

    def _wheel(self, release: str) -> dict[str, Any]:
        wanted = _version(release)
        listing = self._cached_listing
        if listing is None or listing.name_of(wanted) is None:
            listing = self._listing(newest=True)
        name = listing.name_of(wanted)
        if name is None:
            near = [each for each in listing.wheels if Version(each).release[:2] == wanted.release[:2]]
            hint = (
                f"There are {', '.join(sorted(near, key=Version))}."
                if near
                else "mishformer-lens compat scan lists all that there are."
            )
            raise ReleaseNotFoundError(f"there is no wheel of transformers {release} in the package index. {hint}")
        wheel = listing.wheels[name]
        if wheel["yanked"] is not None:
            raise ReleaseNotFoundError(
                f"transformers {release} was withdrawn by its authors ({wheel['yanked']}). Take another patch release."
            )
        return wheel

    def _listing(self, newest: bool = False) -> _Listing:
        """The list of releases; an old one, with a warning, where the index cannot be reached."""
        known = self._cached_listing
        if known is not None and (self._offline or (known.is_fresh and not newest)):
            return known
        if self._offline:
            raise RegistryError(
                "no list of releases is in the cache, and the index must not be asked. "
                "Run the same command once without --offline."
            )
        try:
            wheels = self._client.wheels()
        except RegistryError as error:
            if known is None:
                raise
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(known.fetched_at))
            _log.warning("%s Going on with the list of releases of %s.", error, when)
            self.__dict__["_cached_listing"] = dataclasses.replace(known, fetched_at=time.time())
            return known
        entries = {each.release: dataclasses.asdict(each) | {"key": each.key} for each in wheels}
        listing = _Listing(time.time(), entries)
        self._cache.set_record("indexes", self._settings_key, dataclasses.asdict(listing))
        self.__dict__["_cached_listing"] = listing
        return listing

    @functools.cached_property
    def _cached_listing(self) -> _Listing | None:
        record = self._cache.record("indexes", self._settings_key)
        if record is None or set(record) != {"fetched_at", "wheels"} or not _are_wheels(record["wheels"]):
            return None
        return _Listing(float(record["fetched_at"]), record["wheels"])

    @property
    def _settings_key(self) -> str:
        settings = self._settings
        return repr((settings.use_indexes, settings.index_url, settings.extra_index_urls, settings.find_links))

    @functools.cached_property
    def _client(self) -> "RegistryClient":
        # Half a second of imports that nothing needs where the cache has the answer.
        from mishformer_lens.compat.registry import RegistryClient

        return RegistryClient(self._settings, self._cache)


def list_releases(since: str | None = None, until: str | None = None) -> list[str]:
    """Final releases of transformers that were not withdrawn, oldest first. See :meth:`Registry.releases`."""
    return Registry().releases(since, until)


def read_source(family: str | Family, release: str, registry: Registry | None = None) -> str:
    """The modeling source of a family in a release. See :meth:`Registry.read` for what it raises."""
    family = FAMILIES[family] if isinstance(family, str) else family
    also = [each.source_path for each in FAMILIES.values()]
    return (registry or Registry()).read(release, family.source_path, also)


def _require(text: str | None, release: str, path: str) -> str:
    if text is None:
        raise SourceFileMissingError(
            f"transformers {release} has no {path}: the release lacks this model, or keeps it elsewhere. "
            "Give another release or module."
        )
    return text


def _version(release: str) -> Version:
    try:
        return Version(release)
    except InvalidVersion:
        raise ReleaseNotFoundError(f"{release!r} is no version number. Give one like 4.48.3.") from None


_WHEEL_FIELDS = {"release", "url", "sha256", "yanked", "index", "key"}


def _are_wheels(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, dict) and set(each) == _WHEEL_FIELDS for each in value.values()
    )


def _wheel_from(entry: dict[str, Any]) -> "Wheel":
    from mishformer_lens.compat.registry import Wheel

    return Wheel(**{name: value for name, value in entry.items() if name != "key"})
