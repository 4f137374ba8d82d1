"""Reports a download's progress: bytes, speed, retries, and lines for people."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from rbee.adapters.download import fetch
from rbee.wire.common import Narration
from rbee.wire.progress import Downloading, Retrying, Verifying

if TYPE_CHECKING:
    from rbee.wire.progress import Report

SPEED_SECONDS: Final = 3.0
"""The reported speed is the average of this long."""
MEGABYTE: Final = 1_000_000


class ProgressReporter:
    """Reports about `target`; `done_before` of its `total` bytes are those of complete files."""

    def __init__(self, target: str, report: Report) -> None:
        self._target = target
        self._report = report
        self.total = 0
        self.done_before = 0
        self._seen: deque[tuple[float, int]] = deque()

    def narrate(self, action: str, human: str) -> None:
        self._report(Narration(actor="model-provisioner", action=action, target=self._target, human=human))

    def on_fetch(self, event: fetch.Step | fetch.Retry) -> None:
        match event:
            case fetch.Retry():
                self._seen.clear()
                self._report(
                    Retrying(
                        attempt=event.attempt,
                        attempts=event.attempts,
                        delay_ms=round(event.delay * 1000),
                        message=event.reason,
                    )
                )
            case fetch.Step(is_verifying=True):
                self._report(Verifying())
            case fetch.Step(bytes_done=done):
                done += self.done_before
                self._report(Downloading(bytes_downloaded=done, bytes_total=self.total, speed_mbps=self._speed(done)))

    def _speed(self, done: int) -> float:
        """Return the MB a second over the last few seconds, or since the first report."""
        now = time.monotonic()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while now - self._seen[0][0] > SPEED_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        return round((done - before) / (now - then) / MEGABYTE, 2) if now > then else 0.0
