"""How long processes have waited for a processor that others had, as the kernel counts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ProcessorWaits:
    """What some daemons and this test have waited since this was made.

    A promise in seconds is one of the daemons, and none of a machine on which other programs have the processors: what
    is promised is the time that has passed without these waits. Where nothing else runs there are none.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = {*pids, os.getpid()}
        self._before = self._by_thread()

    def seconds(self) -> float:
        """Return the seconds of the one thread that has waited longest; several may wait at the same time."""
        return max(waited - self._before.get(thread, 0) for thread, waited in self._by_thread().items())

    def _by_thread(self) -> dict[str, float]:
        """Return the seconds by thread; of those that have gone, and where the kernel does not count, nothing."""
        found = {"none": 0.0}
        for pid in self._pids:
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    found[file.parent.name] = int(file.read_text().split()[1]) / 1e9
                except OSError:
                    continue
        return found
