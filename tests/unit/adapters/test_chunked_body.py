"""Chunked bodies, cut at every byte, and what is none."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.adapters.http.direct.chunked_body import MAX_LINE, ChunkedBody, ChunkedBodyError

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def by_h11(body: bytes) -> tuple[bytes, bool]:
    """Return the content of a body as h11 reads it, and whether it is over."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(HEAD + body)
    found = b""
    while (event := peer.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        found += event.data if isinstance(event, h11.Data) else b""
    return found, peer.their_state is h11.DONE


def read(pieces: list[bytes]) -> tuple[bytes, ChunkedBody]:
    body = ChunkedBody()
    return b"".join(body.feed(piece) for piece in pieces), body


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    extension=st.sampled_from(["", ";a=b", " "]),
    trailer=st.sampled_from(["", "A: b\r\n"]),
    after=st.sampled_from([b"", b"HTTP/1.1 200"]),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_a_body_is_what_h11_makes_of_it_wherever_it_is_cut(
    chunks: list[bytes], extension: str, trailer: str, after: bytes, cuts: list[int]
) -> None:
    lines = b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension.encode(), one) for one in chunks)
    whole = lines + b"0\r\n" + trailer.encode() + b"\r\n" + after
    at = sorted({0, *(min(cut, len(whole)) for cut in cuts), len(whole)})
    found, body = read([whole[begin:end] for begin, end in pairwise(at)])
    assert (found, body.is_over) == by_h11(whole) == (b"".join(chunks), True)
    assert body.rest == after
    cut = whole[: len(lines)]
    found, body = read([cut[:1], cut[1:]])
    assert (found, body.is_over) == by_h11(cut) == (b"".join(chunks), False)


@pytest.mark.parametrize(
    "broken",
    [
     b"zzz\r\n", b"-1\r\n", b"+1\r\n", b"1_0\r\n", b"\r\n", b"0x1\r\n", b"1" * 16 + b"\r\n", b"1\r\nab\r\n",
     b"1" * MAX_LINE,
     b"0\r\n" + b"a: b\r\n" * MAX_LINE],
)  # fmt: skip
def test_what_is_no_chunk_is_refused_after_what_came_before(broken: bytes) -> None:
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n") == b"a"
    with pytest.raises(ChunkedBodyError):  # noqa: PT012 (a chunk that is too long is there before its end is not)
        body.feed(broken)
        body.feed(b"")
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n" + broken)[:1] == b"a"
    with pytest.raises(ChunkedBodyError):
        body.feed(b"")
    assert not body.is_over
