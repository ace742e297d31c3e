"""A package index on this machine that answers uv and pypi-simple, with empty wheels and given sdists."""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.grid import ROOT

LONG_AGO = "2020-01-01T00:00:00Z"


@dataclass
class Index:
    """Projects with their releases: version to (time of upload, whether it was withdrawn)."""

    url: str = ""
    projects: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)

    sdists: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def add(self, project: str, version: str, uploaded: str = LONG_AGO, *, withdrawn: bool = False) -> None:
        """Puts one release on the index."""
        self.projects.setdefault(canonicalize_name(project), {})[version] = (uploaded, withdrawn)

    def add_sdist(self, project: str, version: str, content: bytes, sha256: str = "") -> None:
        """Puts an sdist beside the wheel of a release. `sha256`: what the index says of it, if not the truth."""
        self.add(project, version)
        self.sdists[f"{project}-{version}.tar.gz"] = content, sha256 or hashlib.sha256(content).hexdigest()

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Content type and body for a path; None where there is nothing."""
        parts = path.strip("/").split("/")
        if parts[0] == "files" and parts[1] in self.sdists:
            return "application/gzip", self.sdists[parts[1]][0]
        if parts[0] == "files":
            name, version = parts[1].split("-")[:2]
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
            return (
                ("text/plain", text) if path.endswith(".metadata") else ("application/zip", wheel(name, version, text))
            )
        if parts[0] != "simple" or parts[1] not in self.projects:
            return None
        page = {"meta": {"api-version": "1.1"}, "name": parts[1], "versions": list(self.projects[parts[1]])}
        files = [self._file(parts[1], *release) for release in self.projects[parts[1]].items()]
        files += [
            {"filename": name, "url": f"{self.url}/files/{name}", "hashes": {"sha256": sha256}, "yanked": False}
            for name, (_, sha256) in self.sdists.items()
            if name.startswith(f"{parts[1]}-")
        ]
        return "application/vnd.pypi.simple.v1+json", json.dumps(page | {"files": files}).encode()

    def _file(self, project: str, version: str, state: tuple[str, bool]) -> dict[str, Any]:
        filename = f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        return {
            "filename": filename,
            "url": f"{self.url}/files/{filename}",
            "hashes": {},
            "core-metadata": True,
            "upload-time": state[0],
            "yanked": state[1],
            "size": 1000,
        }


def wheel(name: str, version: str, metadata: bytes) -> bytes:
    """An empty wheel."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return buffer.getvalue()


def direct_dependencies() -> set[str]:
    """The names of everything that pyproject.toml asks for by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [group for name, group in project["dependency-groups"].items() if name != "mishax"]
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values(), *groups]
    return {Requirement(item).name for items in lists for item in items if isinstance(item, str)}


@contextmanager
def serving() -> Iterator[Index]:
    """An index that answers while the block runs."""
    index = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = index.answer(self.path)
            self.send_response(200 if answer else 404)
            if answer:
                self.send_header("Content-Type", answer[0])
            self.send_header("Content-Length", str(len(answer[1]) if answer else 0))
            self.end_headers()
            if answer:
                self.wfile.write(answer[1])

        def do_HEAD(self) -> None:
            self.send_error(405)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
