"""Measures how long something takes, apart from waits for a processor that other programs had."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable


class Stopwatch:
    """Runs from when it is made; what `pids` and this process wait for a processor is not counted.

    A promise in seconds is one of the program, and none of a machine on which other programs have the processors. Where
    nothing else runs there are no such waits; where the kernel does not count them (schedstat), there are none either.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = {*pids, os.getpid()}
        self._waited: dict[str, float] = {}
        self._read()
        self._before = dict(self._waited)
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds until now, without those of the one thread that has waited longest.

        Several may wait at the same time. A process that is to end has to be asked for until then, as `until` does.
        """
        self._read()
        waited = (seconds - self._before.get(thread, 0) for thread, seconds in self._waited.items())
        return time.monotonic() - self._started - max(waited, default=0)

    def until(self, condition: Callable[[], bool]) -> float:
        """Return after how many seconds it was so."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            self._read()
            time.sleep(0.005)
        return self.seconds()

    def _read(self) -> None:
        for pid in self._pids:
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    self._waited[file.parent.name] = int(file.read_text().split()[1]) / 1e9
                except OSError:
                    continue  # the thread has ended meanwhile
