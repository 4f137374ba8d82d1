"""Event streams, cut into pieces anywhere, against an independent reader of the same standard."""

from __future__ import annotations

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.adapters.http.event_parser import Event, EventParser

LINES = st.sampled_from([
    "data: {}", "data:x", "data:  two spaces", "data", "data:", "event: worker", "event:e", ": a comment", "id: 7",
    "retry: 3", "unknown: field", "data: \u00e4\u2028\x85b", "data: [DONE]",
])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("data: a\n\ndata: b\n\n", [("message", "a"), ("message", "b")]),
        ("data: a\n: heartbeat\n\n", [("message", "a")]),
        (": heartbeat\ndata: a\n\n", [("message", "a")]),
        ("event: n\ndata: b\ndata: c\n\ndata: d\n\n", [("n", "b\nc"), ("message", "d")]),
        ("event: n\n\ndata: a\n\n", [("message", "a")]),
        ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("message", "a"), ("message", "b"), ("message", "c")]),
        ("data: a\n\n\n\n\ndata: b\n\n", [("message", "a"), ("message", "b")]),
        ("data: has no end\n", []),
    ],
)
def test_events_are_those_of_the_standard(text: str, found: list[tuple[str, str]]) -> None:
    assert EventParser().feed(text.encode()) == [Event(*event) for event in found]


@given(
    events=st.lists(st.lists(LINES, max_size=4), max_size=6),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=7),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_any_stream_cut_anywhere_is_read_as_others_read_it(
    events: list[list[str]], ends: list[str], cuts: list[int]
) -> None:
    lines = [line for event in events for line in [*event, "data: last", ""]]
    body = "".join(line + ends[number % len(ends)] for number, line in enumerate(lines)).encode()
    response = httpx.Response(200, content=body, headers={"Content-Type": "text/event-stream"})
    expected = [Event(event.event, event.data) for event in httpx_sse.EventSource(response).iter_sse()]
    parser, found, before = EventParser(), list[Event](), 0
    for cut in [*sorted(cuts), len(body)]:
        found += parser.feed(body[before:cut])
        before = max(before, cut)
    assert found == expected


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert EventParser().feed(b"data: \xff\n\nevent: \xfe\ndata: \xc3\n\n") == [
        Event("message", "\ufffd"),
        Event("\ufffd", "\ufffd"),
    ]
