"""A partial download: locked, resumable, hashed as it grows."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final, Self

from rbee.adapters.files.sha256 import RunningSha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

READ_BYTES: Final = 1024 * 1024


class PartialFile:
    """The file `NAME.part`, open and locked, with `NAME.part.etag` beside it: the validator of what it holds.

    `digest` is the SHA-256 of its bytes, once `read` has hashed those that an earlier process left.
    """

    def __init__(self, to: Path) -> None:
        self._to = to
        self._path = to.with_name(f"{to.name}.part")
        self._etag = to.with_name(f"{to.name}.part.etag")
        self._file: BinaryIO
        self.digest: RunningSha256

    def __enter__(self) -> Self:
        self._to.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self.digest = RunningSha256()
        return self

    def __exit__(self, *failure: object) -> None:
        self.digest.close()
        self._file.close()

    def lock(self) -> bool:
        """Lock the file; returns False while another fetch holds the lock.

        Two hives may share a folder of models, and a thread that was abandoned may still have a last word to write.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not self._is_current():
            # The fetch that held the lock has renamed or removed the file.
            self._file.close()
            self._file = self._path.open("ab", buffering=0)
            return self.lock()
        return True

    def _is_current(self) -> bool:
        ours = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def read(self, is_over: Callable[[], bool]) -> None:
        """Hash the bytes that are on the disk; stops early when `is_over`."""
        if self.digest.count == self.size:
            return
        self.digest.clear()
        with self._path.open("rb", buffering=0) as file:
            while (piece := file.read(READ_BYTES)) and not is_over():
                self.digest.update(piece)

    def append(self, data: bytes) -> None:
        """Append. Raises OSError; the bytes that fitted are written and counted."""
        view = memoryview(data)
        while view:
            count = self._file.write(view)
            self.digest.update(data if count == len(data) else bytes(view[:count]))
            view = view[count:]

    def clear(self) -> None:
        self._file.truncate(0)
        self._etag.unlink(missing_ok=True)
        self.digest.clear()

    @property
    def etag(self) -> str | None:
        """The validator of the bytes on the disk, where the site gave a strong one."""
        try:
            return self._etag.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def remember(self, etag: str) -> None:
        """Keep a strong validator; a weak one does not vouch for bytes (RFC 9110, section 8.8.1)."""
        if etag.startswith('"') and etag.isascii() and etag.isprintable():
            self._etag.write_text(etag, encoding="ascii")
        else:
            self._etag.unlink(missing_ok=True)

    def discard(self) -> None:
        self.clear()
        self._path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Sync it to the disk, then rename it to the file's name."""
        os.fsync(self._file.fileno())
        self._path.replace(self._to)
        self._etag.unlink(missing_ok=True)
        folder = os.open(self._to.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
