"""Computes the SHA-256 of files: of one on its way, in a thread beside whoever writes it, and of one that is there."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIECE: Final = 1024 * 1024
AHEAD: Final = 8
"""Pieces that may wait: memory stays bounded where the hash is slower than the network."""


def of_file(path: Path, is_over: Callable[[], object]) -> tuple[str, int]:
    """Return the SHA-256 of a file and how many bytes that covers; `is_over` may raise between two pieces."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            count += len(piece)
            is_over()
    return digest.hexdigest(), count


class Hashing:
    """A digest that grows; hashlib lets other threads run meanwhile. Close it, or its thread stays."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pieces: queue.Queue[bytes | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.count = 0

    def update(self, piece: bytes) -> None:
        """Add bytes, which are not to change any more."""
        self.count += len(piece)
        self._pieces.put(piece)

    def clear(self) -> None:
        """Begin anew."""
        self._pieces.join()
        self._digest, self.count = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """Return the digest of all that was added."""
        self._pieces.join()
        return self._digest.hexdigest()

    def close(self) -> None:
        """End its thread, once that has come to the end of what was added."""
        self._pieces.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._digest.update(piece)
            self._pieces.task_done()
