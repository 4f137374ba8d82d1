"""Tells what the fetching of a model comes to: bytes, speed, further attempts, and words for people."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from rbee.adapters.download import fetch
from rbee.wire.common import Narration
from rbee.wire.download import Downloading, Retrying, Verifying

if TYPE_CHECKING:
    from rbee.wire.progress import Report

SPEED_SECONDS: Final = 3.0
"""The speed that is told is that of so long a time."""
MEGABYTE: Final = 1_000_000


class Telling:
    """What is told of `target`; of its `total` bytes, `done_before` are those of files that are whole."""

    def __init__(self, target: str, report: Report) -> None:
        self._target = target
        self._tell = report
        self.total = 0
        self.done_before = 0
        self._seen: deque[tuple[float, int]] = deque()

    def say(self, action: str, human: str) -> None:
        """Tell people."""
        self._tell(Narration(actor="model-provisioner", action=action, target=self._target, human=human))

    def pass_on(self, event: fetch.Step | fetch.Retry) -> None:
        """Tell what has come of one file."""
        match event:
            case fetch.Retry():
                self._seen.clear()
                self._tell(
                    Retrying(
                        attempt=event.attempt,
                        attempts=event.attempts,
                        delay_ms=round(event.delay * 1000),
                        message=event.reason,
                    )
                )
            case fetch.Step(is_verifying=True):
                self._tell(Verifying())
            case fetch.Step(bytes_done=done):
                done += self.done_before
                self._tell(Downloading(bytes_downloaded=done, bytes_total=self.total, speed_mbps=self._speed(done)))

    def _speed(self, done: int) -> float:
        """Return the MB a second of the last few seconds, or of what there was of them."""
        now = time.monotonic()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while now - self._seen[0][0] > SPEED_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        return round((done - before) / (now - then) / MEGABYTE, 2) if now > then else 0.0


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
