"""Reads the streams of progress with which daemons answer, and the results that end them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from rbee.adapters.http import sse_client
from rbee.errors import InternalError
from rbee.wire.common import Narration
from rbee.wire.progress import STAGES, Progress, Reading

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.http.event_parser import Event
    from rbee.errors import RbeeError
    from rbee.wire.progress import DownloadEvent, ProgressEvent, Report

T = TypeVar("T")


class _Staged(msgspec.Struct):
    stage: str


def progress_of(event: Event) -> ProgressEvent | None:
    """Return an event's narration or progress; None for any other event, which is a result."""
    if event.name == "narration":
        return sse_client.decode_event(event.data, Narration)
    if event.name != "progress":
        return None
    stage = sse_client.decode_event(event.data, _Staged).stage
    kind: type[Progress | Reading | DownloadEvent] = STAGES.get(stage, Progress)
    return sse_client.decode_event(event.data, kind)


async def result_of(
    stream: AbstractAsyncContextManager[sse_client.EventStream], kind: type[T], report: Report, lost: RbeeError
) -> T:
    """Return the result that ends a stream of progress, which is reported as it comes; raises `lost` without one."""
    try:
        async with stream as events:
            async for event in events:
                if (message := progress_of(event)) is None:
                    return sse_client.decode_event(event.data, kind)
                report(message)
    except sse_client.StreamLostError as exc:
        lost.message += f": {exc}"
        raise lost from exc
    raise InternalError("the daemon ended the stream without a result")
