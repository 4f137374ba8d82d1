"""Requests, as a table and as lines of a table that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.keeper.output import render, tables
from rbee.keeper.output.columns import pad
from rbee.keeper.views.workers import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.administration.requests import RequestInfo

HEADINGS: Final = (
    *("request", "when", "key", "address", "model", "node", "prompt", "cached", "tokens"),
    *("queue", "first", "total", "end"),
)
SHORT: Final = 8
"""Characters of an id that are shown; they are enough to identify it."""
_WIDTHS: Final = (8, 19, 10, 15, 24, 8, 6, 6, 6, 8, 8, 8, 0)


def table(requests: Sequence[RequestInfo], room: int | None) -> str:
    """Return requests as a table that fits into `room` columns."""
    return tables.table(HEADINGS, [_row(request) for request in requests], room)


def heading() -> str:
    """Return the line above those of `line`."""
    return _line([name.upper() for name in HEADINGS])


def line(request: RequestInfo) -> str:
    """Return a request as a line that stands below others, whatever comes later."""
    return _line([render.clean(str(cell)) for cell in _row(request)])


def _line(cells: Sequence[str]) -> str:
    return "  ".join(pad(cell, width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _row(request: RequestInfo) -> tuple[object, ...]:
    return (
        request.id[:SHORT],
        moment(request.began_unix),
        request.caller or "–",
        request.address,
        request.model or "–",
        request.node or "–",
        *(_number(count) for count in (request.prompt_tokens, request.cached_tokens, request.tokens)),
        *(milliseconds(ms) for ms in (request.queue_ms, request.first_token_ms, request.total_ms)),
        request.end or "runs",
    )


def _number(count: int | None) -> object:
    return "–" if count is None else count


def milliseconds(ms: int | None) -> str:
    """Return a time for people."""
    if ms is None:
        return "–"
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
