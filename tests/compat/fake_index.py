"""A package index on this machine, with wheels made for the test."""

import dataclasses
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

GPT2 = "transformers/models/gpt2/modeling_gpt2.py"
GPT_NEOX = "transformers/models/gpt_neox/modeling_gpt_neox.py"


def make_wheel(release: str, files: Mapping[str, str | bytes]) -> bytes:
    """The bytes of a wheel of transformers that holds ``files`` and its metadata."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"transformers-{release}.dist-info/METADATA", f"Name: transformers\nVersion: {release}\n")
    return buffer.getvalue()


@dataclasses.dataclass
class FakeIndex:
    """What the index serves, and what it was asked for."""

    url: str = ""
    wheels: dict[str, bytes] = dataclasses.field(default_factory=dict)
    yanked: dict[str, str] = dataclasses.field(default_factory=dict)
    hashes: dict[str, str] = dataclasses.field(default_factory=dict)
    ranges: bool = True
    page: bytes | None = None
    gone: bool = False
    requests: list[str] = dataclasses.field(default_factory=list)
    authorizations: set[str] = dataclasses.field(default_factory=set)
    sent: int = 0

    @property
    def links_url(self) -> str:
        """A page with a link to every wheel, in HTML."""
        return self.url + "links"

    def links_page(self) -> bytes:
        """The answer to a request for :attr:`links_url`."""
        return "".join(f'<a href="/files/{_filename(each)}">{_filename(each)}</a>' for each in self.wheels).encode()

    def add(self, release: str, files: Mapping[str, str | bytes]) -> None:
        """Serve a wheel with ``files``."""
        self.wheels[release] = make_wheel(release, files)

    def project_page(self) -> bytes:
        """The answer to a request for the project, in JSON."""
        if self.page is not None:
            return self.page
        files = [
            {
                "filename": _filename(release),
                "url": f"/files/{_filename(release)}",
                "hashes": {"sha256": self.hashes.get(release, hashlib.sha256(data).hexdigest())},
                "yanked": self.yanked.get(release, False),
            }
            for release, data in self.wheels.items()
        ]
        return json.dumps({"meta": {"api-version": "1.0"}, "name": "transformers", "files": files}).encode()

    def wheel(self, path: str) -> bytes | None:
        """The wheel that ``path`` names."""
        named = {f"/files/{_filename(release)}": data for release, data in self.wheels.items()}
        return named.get(path)


def _filename(release: str) -> str:
    return f"transformers-{release}-py3-none-any.whl"


@contextmanager
def serve(index: FakeIndex) -> Iterator[FakeIndex]:
    """Serve ``index`` on a free port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            index.authorizations.add(self.headers.get("Authorization", ""))
            if self.path == "/simple/transformers/":
                self._answer(200, index.project_page(), {"Content-Type": "application/vnd.pypi.simple.v1+json"})
                return
            if self.path == "/simple/links":
                self._answer(200, index.links_page(), {"Content-Type": "text/html"})
                return
            data = None if index.gone else index.wheel(self.path)
            if data is None:
                self._answer(404, b"")
                return
            wanted = self.headers.get("Range") if index.ranges else None
            if wanted is None:
                self._answer(200, data)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            end = int(last) if first and last else len(data) - 1
            part = data[start : end + 1]
            self._answer(206, part, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"})

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            index.sent += len(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple/"
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
