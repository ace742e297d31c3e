"""Sources that were fetched once, kept in the platform's cache folder."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from mishformer_lens.errors import CacheError

CACHE_VARIABLE = "MISHFORMER_LENS_CACHE"
"""This environment variable names another folder for the cache."""

DEFAULT_LIMIT = 256 * 2**20
"""Bytes of sources that are kept; those of a hundred releases and two dozen families take about 22 MB."""


class SourceCache:
    """Texts by their hash, and small records by a key, both written whole or not at all.

    A text that no longer has its hash, and a record that cannot be read, count as absent: they are fetched anew.

    Args:
        folder: where to keep them; by default what ``MISHFORMER_LENS_CACHE`` says, else the platform's cache folder.
        limit: bytes of texts above which those that were not used for longest are dropped.
    """

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        named = os.environ.get(CACHE_VARIABLE)
        self.folder = folder or (Path(named) if named else platformdirs.user_cache_path("mishformer-lens"))
        self.limit = limit

    def text(self, digest: str) -> str | None:
        """The text whose SHA-256 is ``digest``, or None."""
        path = self._text_path(digest)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        with contextlib.suppress(OSError):  # a cache that can only be read serves as well
            os.utime(path)
        return data.decode("utf-8")

    def add_text(self, text: str) -> str:
        """Keep ``text`` and return its SHA-256.

        Raises:
            CacheError: the folder cannot be written.
        """
        data = text.encode("utf-8")
        digest = hashlib.sha256(data).hexdigest()
        self._write(self._text_path(digest), data)
        self._drop_oldest(keep=digest)
        return digest

    def record(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record of ``kind`` under ``key``, or None."""
        try:
            value = json.loads(self._record_path(kind, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def set_record(self, kind: str, key: str, value: dict[str, Any]) -> None:
        """Keep a record.

        Raises:
            CacheError: the folder cannot be written.
        """
        self._write(self._record_path(kind, key), json.dumps(value).encode())

    @contextlib.contextmanager
    def scratch_file(self) -> Iterator[Path]:
        """A file to work with that is gone afterwards.

        Raises:
            CacheError: the folder cannot be written.
        """
        with self._reporting():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _text_path(self, digest: str) -> Path:
        return self.folder / "texts" / f"{digest}.py"

    def _record_path(self, kind: str, key: str) -> Path:
        # Keys come from outside; their hash can be no path that leaves the folder.
        return self.folder / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _write(self, path: Path, data: bytes) -> None:
        with self.scratch_file() as scratch, self._reporting():
            scratch.write_bytes(data)
            path.parent.mkdir(exist_ok=True)
            scratch.chmod(0o644)
            scratch.replace(path)

    def _drop_oldest(self, keep: str) -> None:
        with self._reporting():
            files = [(path.stat(), path) for path in (self.folder / "texts").iterdir() if path.stem != keep]
            total = self._text_path(keep).stat().st_size + sum(stat.st_size for stat, _ in files)
            for stat, path in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
                if total <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= stat.st_size

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"the cache folder {self.folder} cannot be written: {error}. "
                f"Make room there, or name another folder in the environment variable {CACHE_VARIABLE}."
            ) from error
