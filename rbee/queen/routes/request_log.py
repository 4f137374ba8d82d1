"""Has each request of the queen's HTTP interface written into its log, once it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from quart import g, request

from rbee.adapters.http import metrics
from rbee.adapters.http.app import client_connection
from rbee.adapters.logs.json_log import correlation
from rbee.errors import RbeeError
from rbee.queen.requests.log import RequestLog, RequestRecord
from rbee.wire import queen as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.http.sse_server import Send

LOOKS: Final = frozenset({wire.HEALTH, wire.STATUS, wire.WORKERS_LIST, wire.WORKERS_HEALTH, metrics.PATH})
"""What is asked again and again by those who only look: it is written with `--debug` alone, unless it is refused."""
MAX_PATH: Final = 100


def add(app: QuartTrio, log: RequestLog) -> None:
    @app.before_request
    async def _begin() -> None:
        g.record = _new_record()

    @app.after_request
    async def _end(response: Response) -> Response:
        record = current()
        if not record.is_stream or request.method == "HEAD":
            record.status = response.status_code
            record.end = getattr(g, "failed", record.end)
            log.write(record, quietly=request.method == "GET" and request.path in LOOKS and record.status < 400)
        return response


def current() -> RequestRecord:
    """Return the record of the request that is answered; one that was refused at once has none before."""
    if not hasattr(g, "record"):
        g.record = _new_record()
    record: RequestRecord = g.record
    return record


def _new_record() -> RequestRecord:
    rule = request.url_rule
    path = request.path[:MAX_PATH] if rule is None else rule.rule
    return RequestRecord(client_connection().peer_host, f"{request.method} {path}", correlation.get())


def watched(
    produce: Callable[[Send], Awaitable[object]], record: RequestRecord, is_over: Callable[[RequestRecord], None]
) -> Callable[[Send], Awaitable[None]]:
    """Return `produce` such that the record has its end, and is passed to `is_over` then."""
    record.is_stream = True

    async def run(send: Send) -> None:
        try:
            await produce(send)
        except RbeeError as exc:
            record.end = exc.code
            raise
        except (trio.Cancelled, trio.BrokenResourceError):
            record.end = "CANCELLED"  # the client has gone
            raise
        except BaseException:
            record.end = "INTERNAL_ERROR"
            raise
        finally:
            is_over(record)

    return run
