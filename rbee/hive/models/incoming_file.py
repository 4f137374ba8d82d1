"""A file that is being sent to this node: appended piece by piece, compared with its hash, and given its name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from rbee.adapters.download import fetch
from rbee.adapters.download.partial_file import PartialFile
from rbee.errors import ChecksumMismatchError, InvalidRequestError, ModelInUseError
from rbee.hive.models.early_look import EarlyLook
from rbee.wire.model_push import MAGIC

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.wire.model_push import PushedFile


@dataclass
class IncomingFile:
    """A file that is being sent, open and locked as long as pieces come."""

    to: Path
    file: PushedFile
    is_first: bool
    lock: trio.Lock = field(default_factory=trio.Lock, init=False)
    used_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.part = PartialFile(self.to)
        self._look = EarlyLook(self.to, self.file.size_bytes, lambda _: None) if self.is_first else None

    @property
    def sha256(self) -> str:
        assert self.file.sha256 is not None
        return self.file.sha256

    @property
    def key(self) -> tuple[Path, str]:
        return self.to, self.sha256

    @property
    def etag(self) -> str:
        """What the partial file is known by: bytes that an earlier version of the file left are of no use."""
        return f'"{self.file.sha256}"'

    def left(self) -> int:
        """Return how many bytes of it are there, without opening it."""
        is_its = self.file.sha256 is None or self.part.etag == self.etag
        return min(size_of(self.to.with_name(f"{self.to.name}.part")) or 0, self.file.size_bytes) if is_its else 0

    def open(self) -> None:
        """Open and lock it. Raises ModelInUseError, or OSError."""
        self.part.__enter__()
        if not self.part.lock():
            self.part.__exit__()
            raise ModelInUseError(
                f"{self.to.name} is being written by another command already", hint="wait for that one to end"
            )
        if self.part.etag != self.etag or self.part.size > self.file.size_bytes:
            self.part.clear()
            self.part.remember(self.etag)

    def append(self, offset: int, data: bytes) -> int:
        """Append a piece that begins where the file ends, else nothing; returns where the file ends now.

        Raises InvalidRequestError, or ModelLoadFailedError where this node could do nothing with the model.
        """
        if offset == self.part.size:
            if offset + len(data) > self.file.size_bytes:
                raise InvalidRequestError(
                    "the piece reaches beyond the end of the file", field="$", rule="a part of the file"
                )
            if offset < len(MAGIC) and not (data[: len(MAGIC)] + bytes(4)).startswith(MAGIC[offset:]):
                self.part.discard()
                raise InvalidRequestError("this is no GGUF file", field="$", rule="begins with GGUF")
            self.part.append(data)
            if self._look is not None:
                self._look.on_fetch(fetch.Step(self.part.size))
        return self.part.size

    def verify(self) -> None:
        """Compare the whole file with its hash. Raises ChecksumMismatchError; nothing of it stays then."""
        self.part.read(_never)
        if (found := self.part.digest.hexdigest()) != self.file.sha256:
            self.part.discard()
            raise ChecksumMismatchError(
                f"{self.to.name} has come as another file than was announced; it was removed",
                hint="was it changed while it was sent? Push it again",
                expected=self.file.sha256,
                found=found,
            )

    def install(self) -> None:
        """Give the file its name, and the time at which its user has written it."""
        self.open()
        try:
            if self.part.size != self.file.size_bytes:
                raise ModelInUseError(f"{self.to.name} was begun anew by another command", hint="push it again")
            self.part.finish()
        finally:
            self.part.__exit__()
        self.set_time()

    def set_time(self) -> None:
        """Give the file the time at which its user has written it, by which it is known to be that version."""
        os.utime(self.to, ns=(self.file.modified_ns, self.file.modified_ns))


def _never() -> bool:
    """Return False, or raise once the task that waits is cancelled."""
    trio.from_thread.check_cancelled()
    return False


def size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
