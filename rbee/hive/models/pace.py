"""Decides how often who follows the hive is told of its downloads (PURE)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.download import DownloadState

SECONDS: Final = 1.0
"""Between two events of one download, but that it begins and that it has ended."""


class Pace:
    """What one follower has been told of downloads; of those in `before` that had ended then, nothing more."""

    def __init__(self, before: Sequence[DownloadState]) -> None:
        self._told = {state.download_id: (state, -math.inf) for state in before if state.is_over}

    def take(self, states: Sequence[DownloadState], now: float) -> tuple[list[DownloadState], float]:
        """Return what is to be told now, and when to look again though nothing has changed."""
        told: dict[str, tuple[DownloadState, float]] = {}
        ready, again = [], math.inf
        for state in states:
            before, at = self._told.get(state.download_id, (None, -math.inf))
            if state == before:
                told[state.download_id] = state, at
            elif before is None or state.is_over or now >= at + SECONDS:
                ready.append(state)
                told[state.download_id] = state, now
            else:
                again = min(again, at + SECONDS)
                told[state.download_id] = before, at
        self._told = told
        return ready, again
