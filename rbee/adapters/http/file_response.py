"""Answers with a file's bytes, from any byte on, in bounded memory however large the file is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, BinaryIO, Final

import trio
from quart import Response, request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

READ_BYTES: Final = 1024 * 1024
READERS: Final = 4
"""Threads that read at once for all who copy; each of them waits for its own network most of the time."""
_RANGE: Final = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")

_limiter = trio.CapacityLimiter(READERS)


async def answer_with_file(path: Path, size: int, etag: str) -> Response | None:
    """Answer with the file, or with the range of it that is asked for; None where it is not there in this size.

    `etag` is a strong validator. A range that is none, or one of several, is answered with the whole
    (RFC 9110, section 14.2), and so is one whose `If-Range` names another file.
    """
    try:
        file = await trio.to_thread.run_sync(_open, path, limiter=_limiter)
    except OSError:
        return None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        return None
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "no-store", "ETag": etag}
    first, last = 0, size - 1
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is not None and request.headers.get("If-Range", etag) == etag:
        first = int(asked[1])
        last = min(last, int(asked[2])) if asked[2] else last
        if first > last:
            file.close()
            return Response(b"", 416, headers | {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last + 1 - first)
    status = 206 if "Content-Range" in headers else 200
    if request.method == "HEAD":
        file.close()
        response = Response(b"", status, content_type="application/octet-stream")
        response.headers.update(headers)
        return response
    return Response(_read(file, first, last + 1), status, headers, content_type="application/octet-stream")


def _open(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


async def _read(file: BinaryIO, at: int, end: int) -> AsyncGenerator[bytes, None]:
    """Yield the bytes from `at` to `end`, less where the file has become shorter; closes it."""
    with file:
        yield b""  # the head of the answer does not wait for the disk
        while at < end:
            count = min(READ_BYTES, end - at)
            piece = await trio.to_thread.run_sync(os.pread, file.fileno(), count, at, limiter=_limiter)
            if not piece:
                return  # the connection is closed then, and who copies learns that it was cut
            at += len(piece)
            yield piece
