"""Reads event streams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx_sse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


def events_of(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Yield name and decoded data of each event of a stream, up to its last."""
    for event in httpx_sse.EventSource(response).iter_sse():
        if event.data == "[DONE]":
            return
        yield event.event, json.loads(event.data)


def until(events: Iterator[tuple[str, Any]], name: str, **values: Any) -> Any:
    """Read events up to the first of this name with these values, and return its data."""
    for event, data in events:
        if event == name and values.items() <= data.items():
            return data
    raise AssertionError(f"the stream ended without {name} {values}")
