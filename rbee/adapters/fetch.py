"""Fetches one file, whole and verified: resumed at its last byte, renamed into place at the end."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters.web import BrokenError
from rbee.errors import ChecksumMismatchError, DownloadFailedError, InsufficientDiskError, StorageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    import httpx

    from rbee.adapters.web import Web

CHUNK: Final = 1024 * 1024
TELL_SECONDS: Final = 0.1
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Resource(NamedTuple):
    """A file on the web, and what it must be; without `sha256` only its size is known."""

    url: str
    size: int
    sha256: str | None


class Patience(NamedTuple):
    """Attempts in all, and the seconds before the second one; each further one waits twice as long."""

    attempts: int = 6
    delay: float = 0.1


class Step(NamedTuple):
    """What is told while a file is fetched: `bytes_done` of it are there."""

    bytes_done: int
    is_verifying: bool = False


class Retry(NamedTuple):
    """Another attempt, `attempt` in number, follows after `delay` seconds."""

    attempt: int
    attempts: int
    delay: float
    reason: str


class Fetch:
    """One file on its way; `run` blocks, and `stop` ends it from another thread."""

    def __init__(
        self, web: Web, resource: Resource, to: Path, patience: Patience, tell: Callable[[Step | Retry], None]
    ) -> None:
        self._web = web
        self._resource = resource
        self._to = to
        self._part = to.with_name(f"{to.name}.part")
        self._etag = to.with_name(f"{to.name}.part.etag")
        self._patience = patience
        self._tell = tell
        self._told_at = 0.0

    def run(self, stopped: threading.Event) -> None:
        """Fetch, verify, and rename into place.

        What is there of an earlier attempt is used; what this one leaves, the next one uses. Raises
        DownloadFailedError, ChecksumMismatchError, InsufficientDiskError, or what the site refuses with.
        """
        try:
            self._to.parent.mkdir(parents=True, exist_ok=True)
            for is_last in (False, True):
                digest = self._complete(stopped)
                if self._resource.sha256 in (None, digest):
                    self._place()
                    return
                self._discard()
                if is_last:
                    raise ChecksumMismatchError(
                        f"{self._to.name} is not what the hub says it is, twice; it was removed",
                        expected=self._resource.sha256,
                        found=digest,
                    )
        except OSError as exc:
            raise self._refused(exc) from exc

    def _complete(self, stopped: threading.Event) -> str:
        """Bring the part to its full size, in several attempts; returns its SHA-256."""
        delay = self._patience.delay
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return self._attempt()
            except BrokenError as exc:
                if stopped.is_set():
                    raise DownloadFailedError("the download was given up") from exc
                if attempt == self._patience.attempts:
                    percent = 100 * self._size_of_part() // max(1, self._resource.size)
                    raise DownloadFailedError(
                        f"{self._to.name} could not be fetched: {exc}, after {attempt} attempts, at {percent} %",
                        hint="look at the network; the next try goes on where this one ended",
                        attempts=attempt,
                        percent=percent,
                        reason=str(exc),
                    ) from exc
                self._tell(Retry(attempt + 1, self._patience.attempts, delay, str(exc)))
                if stopped.wait(delay):
                    raise DownloadFailedError("the download was given up") from exc
                delay *= 2
        raise AssertionError

    def _attempt(self) -> str:
        size, have = self._resource.size, self._size_of_part()
        if have > size:
            self._discard()
            have = 0
        digest = hashlib.sha256()
        with self._part.open("ab") as file:
            if have:
                self._tell(Step(have, is_verifying=have == size))
                _hash(self._part, digest)
            if have < size:
                digest = self._receive(file, have, digest)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _receive(self, file: BinaryIO, have: int, digest: hashlib._Hash) -> hashlib._Hash:
        """Append what is missing; returns the digest of the whole."""
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            if (etag := self._known_etag()) is not None:
                headers["If-Range"] = etag  # RFC 9110, section 13.1.5: a changed file comes whole
        with self._web.get(self._resource.url, headers) as response:
            if have and not self._continues(response, have):
                # What is there is of another file, or the site does not resume.
                file.truncate(0)
                have, digest = 0, hashlib.sha256()
                if response.status_code != 200:
                    raise BrokenError("the site does not go on where the last attempt ended")
            self._remember_etag(response)
            for part in self._web.parts(response):
                have += len(part)
                if have > self._resource.size:
                    raise BrokenError("the site sends more than the file's size")
                file.write(part)
                digest.update(part)
                if (now := time.monotonic()) - self._told_at >= TELL_SECONDS:
                    self._told_at = now
                    self._tell(Step(have))
        if have < self._resource.size:
            raise BrokenError(f"the connection ended at {have} of {self._resource.size} bytes")
        self._tell(Step(have))
        return digest

    def _continues(self, response: httpx.Response, have: int) -> bool:
        if response.status_code != 206:
            return False
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return found is not None and (int(found[1]), int(found[3])) == (have, self._resource.size)

    def _size_of_part(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _known_etag(self) -> str | None:
        try:
            return self._etag.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def _remember_etag(self, response: httpx.Response) -> None:
        """Keep a strong validator beside the part; a weak one does not vouch for bytes."""
        etag = response.headers.get("ETag", "")
        if etag.startswith('"') and etag.isascii():
            self._etag.write_text(etag, encoding="ascii")
        else:
            self._etag.unlink(missing_ok=True)

    def _place(self) -> None:
        self._part.replace(self._to)
        self._etag.unlink(missing_ok=True)
        folder = os.open(self._to.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)

    def _refused(self, exc: OSError) -> Exception:
        """Say in words what the disk refuses; what is there stays for the next try."""
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            missing = self._resource.size - self._size_of_part()
            return InsufficientDiskError(
                f"the disk is full: {missing / 1e6:.0f} MB of {self._to.name} are missing",
                hint="free some space, and the next try goes on where this one ended",
                required=-(-missing // 1_000_000),
                available=0,
            )
        return StorageError(f"{self._to.name} cannot be written: {exc.strerror}")


def _hash(path: Path, digest: hashlib._Hash) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(CHUNK))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
