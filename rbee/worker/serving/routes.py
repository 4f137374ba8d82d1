"""The worker's HTTP interface."""

from __future__ import annotations

import re
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import trio
from msgspec import UNSET
from quart import Response
from quart import request as quart_request

from rbee import __version__
from rbee.adapters.http import metrics
from rbee.adapters.http.app import answer, body, client_connection, empty, new_app, streamed, with_keys
from rbee.adapters.http.sse_server import event
from rbee.errors import ModelInUseError, RbeeError
from rbee.wire import worker as wire
from rbee.wire.addresses import is_own
from rbee.wire.common import API_VERSION, CACHE_SALT_HEADER, KEEP_HEADER, Health, base_url
from rbee.wire.decode import keep_seconds
from rbee.wire.error_body import to_body
from rbee.worker.serving.answer_stream import AnswerStream
from rbee.worker.serving.follow import Limits, RequestClock
from rbee.worker.serving.responses import InferenceResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart_trio import QuartTrio

    from rbee.adapters.config import Timeouts
    from rbee.adapters.http.sse_server import Send
    from rbee.worker.serving.service import BegunRequest, Service
    from rbee.worker.status.status import Snapshot, Status

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class WorkerIdentity(NamedTuple):
    """The worker's id, the key that opens it, and the URL at which it is reached."""

    worker_id: str
    key: str
    url: str


def new(
    identity: WorkerIdentity,
    status: Status,
    service: Service,
    *,
    timeouts: Timeouts,
    nursery: trio.Nursery,
    shut_down: Callable[[], None],
) -> QuartTrio:
    """Return the application; streams are produced in `nursery`."""
    app = new_app("worker", with_keys(lambda _: (identity.key,), {wire.HEALTH, wire.READY}))

    @app.get(wire.HEALTH)
    async def health() -> Response:
        return answer(
            Health(status="alive", version=__version__, api_version=API_VERSION, worker_id=identity.worker_id)
        )

    @app.get(wire.READY)
    async def ready() -> Response:
        return answer(_ready(status.now, _url_for_client(identity.url)))

    @app.get(wire.LOADING_PROGRESS)
    async def loading() -> Response:
        return streamed(nursery, partial(_follow_loading, status), heartbeat=timeouts.heartbeat)

    @app.get(wire.EVENTS)
    async def events() -> Response:
        return streamed(nursery, partial(_follow_status, status), heartbeat=timeouts.heartbeat)

    @app.post(wire.INFERENCE)
    async def inference() -> Response:
        started = trio.current_time()
        request = await body(wire.InferenceRequest)
        request_id = request.request_id or str(uuid.uuid4())
        keep = keep_seconds(quart_request.headers.get(KEEP_HEADER))
        salt = quart_request.headers.get(CACHE_SALT_HEADER, "")
        try:
            begun = await service.begin(request, request_id, salt)
        except RbeeError as exc:
            status.add_ended(wire.EndedRequest(request_id=request_id, duration_ms=_since(started), end=exc.code))
            raise
        if keep is not None:
            status.set_keep(keep)
        clock = RequestClock(started, Limits(timeouts.inference, timeouts.token))
        reply = _response(service, request, begun, clock, status.add_ended)
        del begun  # from here on its job lives as long as the response: see JobHandle
        headers = {wire.REQUEST_ID_HEADER: request_id}

        async def on_silent(is_silent: bool) -> None:
            service.set_silent(request_id, is_silent)

        watched = client_connection().watched(timeouts.silent, on_silent)
        if request.stream:

            async def produce(send: Send) -> None:
                with watched:
                    await reply.stream(send)

            # A client acknowledges only what it is sent.
            return streamed(nursery, produce, headers=headers, heartbeat=min(timeouts.heartbeat, timeouts.silent / 2))
        assert isinstance(reply, InferenceResponse), "what is typed is a stream, which the service has checked"
        with watched:
            response = answer(await reply.whole())
        response.headers.update(headers)
        return response

    @app.delete(f"{wire.INFERENCE}/<request_id>")
    async def cancel(request_id: str) -> Response:
        if _UUID.fullmatch(request_id):
            await service.cancel(request_id)
        return empty(204)

    @app.post(f"{wire.INFERENCE}/<request_id>/reader")
    async def reader(request_id: str) -> Response:
        service.set_silent(request_id, (await body(wire.Reader)).silent)
        return empty(204)

    @app.post(wire.SHUTDOWN)
    async def shutdown() -> Response:
        if wire.ONLY_IF_IDLE in quart_request.args:
            if status.now.running:
                raise ModelInUseError("the worker has a request")
            status.set_draining()  # here, or a request could come before it drains
        shut_down()
        return answer({"status": "draining"}, 202)

    @app.get(metrics.PATH)
    async def exposition() -> Response:
        return Response(service.metrics.render(), content_type=metrics.CONTENT_TYPE)

    return app


def _response(
    service: Service,
    request: wire.InferenceRequest,
    begun: BegunRequest,
    clock: RequestClock,
    on_ended: Callable[[wire.EndedRequest], None],
) -> InferenceResponse | AnswerStream:
    """Return what answers a request that has begun: with typed events where they are wanted."""
    shared: dict[str, Any] = {
        "max_tokens": None if request.max_tokens is UNSET else request.max_tokens,
        "context": service.context(),
        "narrate": request.narrate,
        "note": service.note(request),
        "on_ended": on_ended,
    }
    job, read = begun
    if read.plan is None:
        return InferenceResponse(job, clock, **shared)
    return AnswerStream(
        job,
        clock,
        read.plan.new_parser,
        choices=request.choices or 1,
        next_job=partial(service.begin_next, request, job.request_id, read),
        echo=read.echo,
        **shared,
    )


def _since(started: float) -> float:
    return round((trio.current_time() - started) * 1e3, 2)


def _url_for_client(url: str) -> str:
    """Return the worker's URL for the client that asks: where the worker listens everywhere, its URL is loopback."""
    parts = urlsplit(url)
    if not is_own(parts.hostname or ""):
        return url
    return base_url(client_connection().own_host, parts.port or 0)


def _ready(now: Snapshot, url: str) -> wire.Readiness:
    return wire.Readiness(
        ready=now.is_ready,
        state=now.state,
        progress_url=f"{url}{wire.LOADING_PROGRESS}" if now.state == "loading" else None,
        model_loaded=now.is_loaded,
        error=None if now.error is None else to_body(now.error)["error"],
    )


async def _follow_loading(status: Status, send: Send) -> None:
    """Send each step of loading, from the one it is at."""
    sent = None
    while True:
        changed, now = status.changed, status.now
        if now.loading is not None and now.loading != sent:
            sent = now.loading
            await send.send(event(sent))
        if now.state != "loading":
            break
        await changed.wait()
    if not now.is_loaded:
        raise now.refusal()  # it failed, or was given up
    await send.send(event(wire.LoadingEnded()))


async def _follow_status(status: Status, send: Send) -> None:
    """Send the state, then every change, and each request that ends meanwhile."""
    sent, told = None, status.ended.count
    with status.followed():
        while True:
            changed, now = status.changed, status.now
            ended, told = status.ended.since(told), status.ended.count
            if (state := now.on_wire()) != sent or ended:
                sent = state
                await send.send(event(msgspec.structs.replace(state, ended=ended) if ended else state))
            if now.is_closed:
                return
            await changed.wait()
