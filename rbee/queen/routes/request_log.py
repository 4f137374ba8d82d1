"""Has each request of the queen's HTTP interface written into its log, once it is over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from quart import g, request

from rbee.adapters.http import metrics
from rbee.adapters.http.app import at_end
from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import expected
from rbee.errors import CancelledError, InternalError
from rbee.queen.requests.record import OK, RequestRecord
from rbee.queen.routes import guard
from rbee.wire import queen as wire
from rbee.wire.administration.requests import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.access.api_keys import ApiKeys
    from rbee.queen.requests.history import RequestHistory
    from rbee.queen.requests.log import RequestLog

LOOKS: Final = frozenset({wire.HEALTH, wire.STATUS, wire.WORKERS_LIST, wire.WORKERS_HEALTH, REQUESTS, metrics.PATH})
"""What is asked again and again by those who only look: it is written with `--debug` alone, unless it is refused."""
MAX_PATH: Final = 100

T = TypeVar("T")


def add(app: QuartTrio, log: RequestLog, history: RequestHistory, keys: ApiKeys, nursery: trio.Nursery) -> None:
    """Register what writes the log, in `nursery` where it has to wait for a worker's words.

    It is counted what keys are used for, and stories go into the history.
    """

    def on_end(record: RequestRecord) -> None:
        history.end(record)
        if record.identity.kind == "key":
            keys.count(
                record.identity.name,
                prompt_tokens=record.prompt_tokens or 0,
                cached_tokens=record.cached_tokens or 0,
                generated_tokens=record.tokens or 0,
            )

    log.on_end = on_end

    @app.before_request
    async def _begin() -> None:
        history.begin(current())
        at_end(partial(_end_unanswered, current(), log, nursery, is_look=_is_look()))

    @app.after_request
    async def _end(response: Response) -> Response:
        record = current()
        if not record.is_stream or request.method == "HEAD":
            record.status = response.status_code
            if (error := getattr(g, "failed", None)) is not None:
                record.on_failed(error)
            log.end(record, nursery, quietly=_is_look() and record.status < 400)
        return response


def _is_look() -> bool:
    return request.method == "GET" and request.path in LOOKS


def _end_unanswered(record: RequestRecord, log: RequestLog, nursery: trio.Nursery, *, is_look: bool) -> None:
    """Write the line of a request whose client has gone before the answer: nothing that follows a request was run.

    Nor is a stream produced whose head could not be sent.
    """
    if record.ended is not None or (record.is_stream and not record.awaits_stream):
        return
    record.awaits_stream = False
    record.status = CancelledError.status
    if record.end == OK:
        record.end = CancelledError.code
    log.end(record, nursery, quietly=is_look)


def current() -> RequestRecord:
    """Return the record of the request that is answered; one that was refused at once has none before."""
    if not hasattr(g, "record"):
        g.record = _new_record()
    record: RequestRecord = g.record
    return record


def _new_record() -> RequestRecord:
    rule = request.url_rule
    path = request.path[:MAX_PATH] if rule is None else rule.rule
    who = guard.identity()
    return RequestRecord(
        who.address,
        f"{request.method} {path}",
        correlation.get(),
        identity=who,
        is_for_text=request.method == "POST" and request.path.startswith((wire.TASKS, *guard.INFERENCE)),
    )


def watched(
    produce: Callable[[T], Awaitable[object]], record: RequestRecord, is_over: Callable[[RequestRecord], None]
) -> Callable[[T], Awaitable[None]]:
    """Return `produce` such that the record has its end, and is passed to `is_over` then."""
    record.is_stream = record.awaits_stream = True

    async def run(send: T) -> None:
        if not record.awaits_stream:
            return  # its client has gone
        record.awaits_stream = False
        try:
            await produce(send)
        except BaseException as exc:
            record.end = end_of(exc)
            if (error := expected(exc)) is not None:
                record.on_failed(error)
            raise
        finally:
            is_over(record)

    return run


def end_of(failure: BaseException) -> str:
    """Return how a request ended that failed so: the code of its error, or CANCELLED where its client has gone."""
    if (error := expected(failure)) is not None:
        return error.code
    group = failure if isinstance(failure, BaseExceptionGroup) else BaseExceptionGroup("", [failure])
    _, rest = group.split((trio.Cancelled, trio.BrokenResourceError))
    return CancelledError.code if rest is None else InternalError.code
