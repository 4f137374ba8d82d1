"""A stand-in for the Hugging Face hub: real HTTP in threads of this process, on two loopback addresses.

It answers as the hub does to `/api/models/REPO?blobs=true` and `/REPO/resolve/REVISION/FILE`, which redirects large
files to a second host. Faults are queued: each answer with a file's content takes the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import socket
import struct
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHUNK = 1 << 20
REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong; positions are fractions of the whole file, wherever the answer begins.

    `reset` cuts the connection there, `stall` sends nothing more, `end` closes it in an orderly way. `wrong` sends
    another last byte, `extra` that many bytes too many, `no_range` ignores the range asked for. `rate` is in bytes a
    second. `page` is sent in place of the file, with status `page_status`; `headers` replace those of the answer, None
    leaves one out, and without a length the body ends with the connection.
    """

    reset: float | None = None
    stall: float | None = None
    end: float | None = None
    wrong: bool = False
    extra: int = 0
    no_range: bool = False
    rate: float | None = None
    status: int | None = None
    retry_after: str | None = None
    page: bytes | None = None
    page_status: int = 200
    headers: Mapping[str, str | None] = field(default_factory=dict)


@dataclass
class Asked:
    """A request as it came, when (by the monotonic clock), and how many bytes of a file were sent for it."""

    host: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0
    at: float = field(default_factory=time.monotonic)


@dataclass
class _File:
    path: Path
    size: int
    sha256: str
    is_large: bool

    @property
    def etag(self) -> str:
        return f'"{self.sha256}"'


@dataclass
class _Repository:
    files: dict[str, _File] = field(default_factory=dict)
    token: str | None = None
    is_gated: bool = False


class Hub:
    """The hub; `with` starts and ends its threads.

    `redirect` replaces the address that large files are redirected to, with `{path}` in it. `fault` is what answers
    suffer while none is queued. `repack` changes what it says of repositories, and the headers with it.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._lock = threading.Lock()
        self.reset()
        self.stopping = threading.Event()
        self._servers = [
            _Server(self, name, address, port) for name, address in (("hub", "127.0.0.1"), ("cdn", "127.0.0.2"))
        ]
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in self._servers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stopping.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def reset(self) -> None:
        """Have nothing again, and no faults."""
        self.repositories: dict[str, _Repository] = {}
        self.asked: list[Asked] = []
        self.fault = Fault()
        self.redirect: str | None = None
        self.refuses: int | None = None
        self.repack: Callable[[bytes], tuple[bytes, dict[str, str]]] | None = None
        self._queue: list[Fault] = []

    @property
    def url(self) -> str:
        return self._servers[0].url

    @property
    def second(self) -> str:
        """The host that large files come from."""
        return self._servers[1].url

    def add(
        self, repository: str, *files: Path, name: str | None = None, is_large: bool = True, sha256: str | None = None
    ) -> None:
        """Offer files, each under its own name or `name`; `sha256` replaces the true hash."""
        found = self.repositories.setdefault(repository, _Repository())
        for path in files:
            status = path.stat()
            digest = sha256 or _digest(path, status.st_mtime_ns)
            found.files[name or path.name] = _File(path, status.st_size, digest, is_large)

    def protect(self, repository: str, token: str, *, is_gated: bool = False) -> None:
        """Give a repository only to who has the token."""
        self.repositories[repository].token = token
        self.repositories[repository].is_gated = is_gated

    def then(self, *faults: Fault) -> None:
        """Queue the faults of the next answers with a file's content."""
        with self._lock:
            self._queue.extend(faults)

    def next_fault(self) -> Fault:
        with self._lock:
            return self._queue.pop(0) if self._queue else self.fault

    def content(self) -> list[Asked]:
        """Return the requests that were answered with a file's content, or would have been."""
        return [asked for asked in self.asked if asked.host == "cdn" or ("/resolve/" in asked.path and asked.sent)]

    @property
    def sent(self) -> int:
        """Bytes of files that were sent in all."""
        return sum(asked.sent for asked in self.asked)


@cache
def _digest(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, hub: Hub, name: str, address: str, port: int) -> None:
        self.hub = hub
        self.name = name
        super().__init__((address, port), _Answer)

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is no error of ours."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing goes to stderr."""

    def do_GET(self) -> None:
        hub = self.server.hub
        self.asked = Asked(self.server.name, self.path, dict(self.headers))
        hub.asked.append(self.asked)
        self.close_connection = True
        path = unquote(urlsplit(self.path).path)
        if hub.refuses is not None:
            self._refuse(hub.refuses, "")
        elif self.server.name == "cdn":
            self._blob(path)
        elif path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/"))
        else:
            repository, _, rest = path[1:].partition("/resolve/")
            self._resolve(repository, rest.partition("/")[2])

    def _refuse(self, status: int, code: str, *, retry_after: str | None = None) -> None:
        body = json.dumps({"error": code}).encode()
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _find(self, repository: str) -> _Repository | None:
        found = self.server.hub.repositories.get(repository)
        if found is None:
            self._refuse(404, "RepoNotFound")
            return None
        if found.token is not None and self.headers.get("Authorization") != f"Bearer {found.token}":
            self._refuse(*((403, "GatedRepo") if found.is_gated else (401, "RepoNotFound")))
            return None
        return found

    def _describe(self, repository: str) -> None:
        if (found := self._find(repository)) is None:
            return
        siblings: list[dict[str, Any]] = []
        for name, file in found.files.items():
            sibling: dict[str, Any] = {"rfilename": name, "size": file.size, "blobId": file.sha256[:40]}
            if file.is_large:
                sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
            siblings.append(sibling)
        body = json.dumps({"id": repository, "sha": REVISION, "gated": found.is_gated, "siblings": siblings}).encode()
        headers = {"Content-Type": "application/json"}
        if (repack := self.server.hub.repack) is not None:
            body, more = repack(body)
            headers |= more
        self._head(200, headers | {"Content-Length": str(len(body))}, Fault())
        self.wfile.write(body)

    def _resolve(self, repository: str, name: str) -> None:
        if (found := self._find(repository)) is None:
            return
        if (file := found.files.get(name)) is None:
            self._refuse(404, "EntryNotFound")
        elif not file.is_large and self.server.hub.redirect is None:
            self._send(file)
        else:
            path = f"/blobs/{repository}/{name}"
            self.send_response(302)
            self.send_header("X-Linked-Etag", file.etag)
            self.send_header("X-Linked-Size", str(file.size))
            self.send_header(
                "Location", (self.server.hub.redirect or self.server.hub.second + "{path}").format(path=quote(path))
            )
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _blob(self, path: str) -> None:
        organisation, name, file = path.removeprefix("/blobs/").split("/", 2)
        self._send(self.server.hub.repositories[f"{organisation}/{name}"].files[file])

    def _send(self, file: _File) -> None:
        fault = self.server.hub.next_fault()
        if fault.status is not None:
            self._refuse(fault.status, "", retry_after=fault.retry_after)
            return
        if fault.page is not None:
            self._head(fault.page_status, {"Content-Length": str(len(fault.page))}, fault)
            self.wfile.write(fault.page)
            return
        start = 0
        asked = self.headers.get("Range", "")
        if asked and not fault.no_range and self.headers.get("If-Range") in (None, file.etag):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= file.size:
                self._refuse(416, "")
                return
        headers = {"ETag": file.etag, "Content-Length": str(file.size - start + fault.extra)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{file.size - 1}/{file.size}"
        self._head(206 if start else 200, headers, fault)
        self.wfile.flush()
        stop = next((position for position in (fault.reset, fault.stall, fault.end) if position is not None), 1.0)
        try:
            self._pump(file, start, int(file.size * stop), fault)
            if fault.extra:
                self.connection.sendall(bytes(fault.extra))
            if fault.stall is not None:
                self._hold()
            if fault.reset is not None:
                self._reset()
        except OSError:
            pass  # the client has gone

    def _head(self, status: int, headers: dict[str, str], fault: Fault) -> None:
        self.send_response(status)
        for name, value in (headers | dict(fault.headers)).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _pump(self, file: _File, at: int, end: int, fault: Fault) -> None:
        chunk = CHUNK if fault.rate is None else max(1, int(fault.rate / 50))
        last = end - 1 if fault.wrong and end == file.size else end
        with file.path.open("rb") as source:
            while at < last and not self.server.hub.stopping.is_set():
                count = os.sendfile(self.connection.fileno(), source.fileno(), at, min(chunk, last - at))
                if not count:
                    break
                at += count
                self.asked.sent += count
                if fault.rate is not None:
                    time.sleep(count / fault.rate)
            if last < end:
                source.seek(last)
                self.connection.sendall(bytes([source.read(1)[0] ^ 0xFF]))
                self.asked.sent += 1

    def _hold(self) -> None:
        """Send nothing until the client goes, or the hub does."""
        while not self.server.hub.stopping.is_set():
            if select.select([self.connection], [], [], 0.05)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _reset(self) -> None:
        """Cut the connection once the client has taken what was sent; else the system might drop some of it."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            (unsent,) = struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0" * 4))
            if not unsent:
                break
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()


def main() -> None:
    """Serve the files named on the command line as ORG/REPO until standard input ends; prints the address."""
    import sys

    with Hub() as hub:
        hub.add(sys.argv[1], *map(Path, sys.argv[2:]))
        print(hub.url, flush=True)  # noqa: T201 (this is what it is for)
        sys.stdin.read()


if __name__ == "__main__":
    main()
