"""SHA-256 of a file, while it is written (in a thread) or afterwards."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_BYTES: Final = 1024 * 1024
MAX_QUEUED_PIECES: Final = 8
"""Bounds the memory where hashing is slower than the network."""


def of_file(path: Path, is_over: Callable[[], object]) -> tuple[str, int]:
    """Return the SHA-256 of a file and the bytes hashed; `is_over` is called between two pieces, and may raise."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
            count += len(piece)
            is_over()
    return digest.hexdigest(), count


class RunningSha256:
    """A digest of bytes as they come, computed in a thread of its own; hashlib releases the GIL. Close it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pieces: queue.Queue[bytes | None] = queue.Queue(MAX_QUEUED_PIECES)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.count = 0

    def update(self, piece: bytes) -> None:
        """Add bytes, which must not change any more."""
        self.count += len(piece)
        self._pieces.put(piece)

    def clear(self) -> None:
        self._pieces.join()
        self._digest, self.count = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        self._pieces.join()
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the thread, after it has hashed what was added."""
        self._pieces.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._digest.update(piece)
            self._pieces.task_done()
