"""Reads the progress events of a daemon's stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.http import sse_client
from rbee.wire.common import Narration
from rbee.wire.download import STAGES
from rbee.wire.progress import Progress

if TYPE_CHECKING:
    from rbee.wire.download import DownloadEvent
    from rbee.wire.progress import ProgressEvent


class _Staged(msgspec.Struct):
    stage: str


def progress_of(event: sse_client.Event) -> ProgressEvent | None:
    """Return an event's narration or progress; None for any other event, which is a result."""
    if event.name == "narration":
        return sse_client.decode_event(event.data, Narration)
    if event.name != "progress":
        return None
    kind: type[Progress | DownloadEvent] = STAGES.get(sse_client.decode_event(event.data, _Staged).stage, Progress)
    return sse_client.decode_event(event.data, kind)
