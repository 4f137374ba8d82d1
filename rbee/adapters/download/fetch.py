"""Fetches one file, whole and verified: resumed at its last byte, renamed at the end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters.download.check_answer import NoResumeError, goes_on
from rbee.adapters.download.partial_file import PartialFile
from rbee.adapters.download.web_errors import BrokenError
from rbee.adapters.files import full_disk
from rbee.errors import ChecksumMismatchError, DownloadFailedError, InsufficientDiskError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import httpx

    from rbee.adapters.download.web import Web

REPORT_SECONDS: Final = 0.1
LOCK_POLL_SECONDS: Final = 0.2
"""Between two tries for the lock that another fetch of this file holds."""
PROGRESS_BYTES: Final = 64 * 1024
"""What counts as progress of an attempt; of a small file, a hundredth of it."""


class Resource(NamedTuple):
    """A file on the web, and what it must be; without `sha256` only its size is known.

    `etag` is the validator that the site must give for it, where that is known beforehand; `magic` is what it begins
    with.
    """

    url: str
    size: int
    sha256: str | None
    etag: str | None = None
    magic: bytes = b""


class Step(NamedTuple):
    """Progress of a fetch: `bytes_done` of the file are on the disk."""

    bytes_done: int
    is_verifying: bool = False


class Retry(NamedTuple):
    """Another attempt, `attempt` in number, follows after `delay` seconds."""

    attempt: int
    attempts: int
    delay: float
    reason: str


class _File(NamedTuple):
    """Identifies a file among those that have its name before or after it."""

    device: int
    inode: int
    changed: int
    size: int


def _which(path: Path) -> _File | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _File(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


@dataclass
class Fetch:
    """One file on its way; `run` blocks, and `stop` ends it from another thread.

    `delays` are the seconds before each further attempt that brings nothing; one that brings some of the file begins
    the count anew. `tries` is how often the hash may turn out wrong.
    """

    web: Web
    resource: Resource
    to: Path
    delays: Sequence[float]
    report: Callable[[Step | Retry], None]
    tries: int = 2
    _reported_at: float = field(default=0.0, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _asks_whole: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._before = _which(self.to)

    def stop(self) -> None:
        """End the fetch soon and report nothing more; the bytes on the disk stay."""
        self._stopped.set()
        self.web.abandon()

    def run(self) -> str | None:
        """Fetch, verify, and rename to the final name; returns the hash, or None when another fetch finished it first.

        Bytes of an earlier attempt are used, and bytes that this one leaves are used by the next. Raises
        DownloadFailedError, ChecksumMismatchError, InsufficientDiskError, StorageError, or what the site refuses with.
        """
        try:
            with PartialFile(self.to) as part:
                while not part.lock():
                    if self._stopped.wait(LOCK_POLL_SECONDS):
                        raise _given_up()
                return None if self._is_there() else self._fetch(part)
        except OSError as exc:
            raise self._refused(exc) from exc

    def _is_there(self) -> bool:
        """Whether the fetch that held the lock has installed the file, or another one under its name."""
        now = _which(self.to)
        return now is not None and now != self._before and now.size == self.resource.size

    def _fetch(self, part: PartialFile) -> str:
        wanted = self.resource.sha256
        for number in range(1, self.tries + 1):
            self._complete(part)
            self._report(Step(part.size, is_verifying=True))
            if wanted in (None, found := part.digest.hexdigest()):
                part.finish()
                return found
            part.clear()
            if number < self.tries:
                reason = f"{self.to.name} is not what the hub says it is; it was removed"
                self._report(Retry(number + 1, self.tries, 0, reason))
        part.discard()
        twice = ", twice" if self.tries > 1 else ""
        raise ChecksumMismatchError(
            f"{self.to.name} is not what the hub says it is{twice}; it was removed",
            hint="the hub, or what stands before it, sends another file than it announces; try again later",
            expected=wanted,
            found=found,
        )

    def _complete(self, part: PartialFile) -> None:
        """Bring the partial file to its full size, in as many attempts as bring it further, and some that do not."""
        attempts = len(self.delays) + 1
        failed, best = 0, part.size
        while True:
            try:
                self._attempt(part)
            except BrokenError as exc:
                if self._stopped.is_set():
                    raise _given_up() from exc
                if part.size >= best + self._progress_bytes:
                    failed = 0
                failed, best = failed + 1, max(best, part.size)
                if failed == attempts:
                    raise self._failed(part, attempts, exc) from exc
                self._asks_whole = isinstance(exc, NoResumeError)
                pause = max(self.delays[failed - 1], exc.after)
                self._report(Step(part.size))
                self._report(Retry(failed + 1, attempts, pause, str(exc)))
                if self._stopped.wait(pause):
                    raise _given_up() from exc
            else:
                return

    @property
    def _progress_bytes(self) -> int:
        """How much an attempt must bring to count as one that did: not a byte, or a site could hold us for ever."""
        return max(1, min(PROGRESS_BYTES, self.resource.size // 100))

    def _failed(self, part: PartialFile, attempts: int, exc: BrokenError) -> DownloadFailedError:
        percent = 100 * part.size // max(1, self.resource.size)
        return DownloadFailedError(
            f"{self.to.name} could not be fetched: {exc}, after {attempts} attempts, at {percent} %",
            hint="look at the network; the next try goes on where this one ended",
            attempts=attempts,
            percent=percent,
            reason=str(exc),
        )

    def _attempt(self, part: PartialFile) -> None:
        """Append the missing bytes. Raises BrokenError; the bytes that came stay."""
        size = self.resource.size
        if part.size > size or (part.etag is None and self.resource.sha256 is None):
            part.clear()  # nothing would vouch for what the next bytes are appended to
        if part.size:
            self._report(Step(part.size))
            part.read(self._stopped.is_set)
        if self._stopped.is_set():
            raise _given_up()
        if part.size == size:
            return
        headers = {"Range": f"bytes={part.size}-"} if part.size and not self._asks_whole else {}
        if headers and (etag := self.resource.etag or part.etag) is not None:
            headers["If-Range"] = etag  # RFC 9110, section 13.1.5: a changed file comes whole
        with self.web.get(self.resource.url, headers) as response:
            self._receive(part, response)
        if part.size < size:
            raise BrokenError(f"the connection ended at {part.size} of {size} bytes")
        self._report(Step(part.size))

    def _receive(self, part: PartialFile, response: httpx.Response) -> None:
        etag = response.headers.get("ETag", "")
        if self.resource.etag not in (None, etag):
            raise BrokenError("the site has another file there")
        have = 0 if self._asks_whole else part.size
        pieces = self.web.parts(response)
        if not goes_on(response.status_code, response.headers, have, self.resource.size, part.etag):
            # What is there is of another file, or the site does not resume; but only the file may take its place.
            pieces = chain([self._beginning(pieces)], pieces)
            part.clear()
        if self.resource.etag is None and (etag or not part.size):
            part.remember(etag)  # else it is this site's alone, and the next one may know the same bytes by another
        size = part.size
        for data in pieces:
            if self._stopped.is_set():
                raise _given_up()
            size += len(data)
            if size > self.resource.size:
                part.clear()
                raise BrokenError("the site sends more than the file's size")
            part.append(data)
            if (now := time.monotonic()) - self._reported_at >= REPORT_SECONDS:
                self._reported_at = now
                self._report(Step(size))

    def _beginning(self, pieces: Iterator[bytes]) -> bytes:
        """Return the first bytes of a file. Raises BrokenError if they are not those of one."""
        begin = b""
        while len(begin) < max(1, len(self.resource.magic)) and (piece := next(pieces, b"")):
            begin += piece
        if not begin:
            raise BrokenError("the connection ended before the file began")
        if not begin.startswith(self.resource.magic):
            raise BrokenError("what came does not begin as the file does; it may be from a login or a proxy in between")
        return begin

    def _report(self, what: Step | Retry) -> None:
        if not self._stopped.is_set():
            self.report(what)

    def _refused(self, exc: OSError) -> InsufficientDiskError | StorageError:
        """Describe what the disk refused; the bytes on it stay for the next try."""
        name = self.to.name
        if full_disk.is_full(exc):
            try:
                there = self.to.with_name(f"{name}.part").stat().st_size
            except OSError:
                there = 0
            return too_little(self.resource.size - there, 0, name)
        if isinstance(exc, FileExistsError | NotADirectoryError):
            return StorageError(
                f"{name} cannot be written: where the models are kept is no folder, or a link to none",
                hint="is the disk there that they are on? `models_dir` under [paths] names another folder",
            )
        return StorageError(f"{name} cannot be written: {exc.strerror}")


def too_little(needed: int, available: int, name: str) -> InsufficientDiskError:
    """Return the error for a disk with `available` bytes where `needed` are to be written."""
    megabytes = [-(-count // 1_000_000) for count in (needed, available, needed - available)]
    return InsufficientDiskError(
        f"{name} needs {megabytes[0]} MB on the disk of the models, {megabytes[1]} MB are available: "
        f"{megabytes[2]} MB too little",
        hint="free some space there, or move `models_dir` under [paths]; what came is kept, and the next try goes on",
        needed=megabytes[0],
        available=megabytes[1],
        difference=megabytes[2],
    )


def _given_up() -> DownloadFailedError:
    return DownloadFailedError("the download was given up")
