"""Limits how often followers of the hive get a download's progress (PURE)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.progress import DownloadState

PROGRESS_SECONDS: Final = 1.0
"""Between two events of one download; its beginning and its end are published at once."""


class ProgressThrottle:
    """What one follower has got of each download; nothing more of those that had ended `before` it came."""

    def __init__(self, before: Sequence[DownloadState]) -> None:
        self._published = {state.download_id: (state, -math.inf) for state in before if state.is_over}

    def take(self, states: Sequence[DownloadState], now: float) -> tuple[list[DownloadState], float]:
        """Return what to publish now, and when to ask again even if nothing has changed."""
        published: dict[str, tuple[DownloadState, float]] = {}
        due, again = [], math.inf
        for state in states:
            before, at = self._published.get(state.download_id, (None, -math.inf))
            if state == before:
                published[state.download_id] = state, at
            elif before is None or state.is_over or now >= at + PROGRESS_SECONDS:
                due.append(state)
                published[state.download_id] = state, now
            else:
                again = min(again, at + PROGRESS_SECONDS)
                published[state.download_id] = before, at
        self._published = published
        return due, again
