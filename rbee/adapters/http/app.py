"""What every daemon's HTTP interface does alike: keys, correlation ids, limits, and one shape of errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
import trio
from quart import Request, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from rbee.adapters import tokens
from rbee.adapters.http import proof as http_proof
from rbee.adapters.http import sse_server
from rbee.adapters.http.asgi.lean_app import LeanApp, add_at_end
from rbee.adapters.http.connection import ClientConnection, connection_of
from rbee.adapters.logs.json_log import correlate, correlation
from rbee.errors import (
    AllSlotsBusyError,
    InternalError,
    InvalidApiKeyError,
    InvalidRequestError,
    MethodNotAllowedError,
    MissingApiKeyError,
    PayloadTooLargeError,
    RbeeError,
    RouteNotFoundError,
)
from rbee.wire.common import CHALLENGE_HEADER, CORRELATION_HEADER, EVENT_STREAM, MAX_BODY_BYTES
from rbee.wire.decode import decode
from rbee.wire.error_body import to_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

    from quart_trio import QuartTrio

    from rbee.adapters.http.asgi.request_feed import FedRequest

BODY_SECONDS: Final = 10.0
MIN_BODY_BYTES: Final = 500
"""What has to come of a body in BODY_SECONDS; any modem is faster."""

T = TypeVar("T")
log = logging.getLogger(__name__)


Admit = Callable[[], Response | None]
"""Lets the current request through, answers it, or raises why it is refused."""
Render = Callable[[RbeeError], Response]
"""Makes the answer to the current request out of an error."""


def with_keys(keys: Callable[[Request], Collection[str]], public: Collection[str]) -> Admit:
    """Admit requests that show one of their `keys`; paths in `public` need none."""

    def admit() -> None:
        if request.path not in public:
            check_key(request, keys(request))
            client_connection().has_shown_key = True

    return admit


def new_app(name: str, admit: Admit, render: Render | None = None) -> QuartTrio:
    """Return an application without routes.

    `admit` is asked about each request before anything else looks at it. Every answer carries the correlation id, every
    failure is an error object, or what `render` makes of it, and a body above 16 MB is refused with 413.
    """
    render = render or failure
    app = LeanApp(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROPAGATE_EXCEPTIONS"] = False
    # No redirections: an odd path is refused as any other that does not exist.
    app.url_map.merge_slashes = False

    @app.before_request
    async def _admit() -> Response | None:
        correlate(request.headers.get(CORRELATION_HEADER))
        if _has_two_lengths(request):
            raise InvalidRequestError(
                "a request has a Content-Length or a Transfer-Encoding, not both",
                field="Content-Length",
                rule="not beside Transfer-Encoding",
            )
        return admit()

    @app.after_request
    async def _mark(response: Response) -> Response:
        if (found := correlation.get()) is not None:
            response.headers[CORRELATION_HEADER] = found
        if _has_two_lengths(request):
            # A proxy before us may take what follows on the connection for the body's end (RFC 9112, section 6.3).
            response.headers["Connection"] = "close"
        return response

    @app.errorhandler(RbeeError)
    async def _expected(error: RbeeError) -> Response:
        return render(error)

    @app.errorhandler(HTTPException)
    async def _refused(error: HTTPException) -> Response:
        return render(_translate(error))

    @app.errorhandler(Exception)
    async def _bug(error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return render(InternalError("the daemon failed; its log says more"))

    return app


def at_end(action: Callable[[], object]) -> None:
    """Have `action` called once the current request's answer has been sent, or its client has gone."""
    add_at_end(request.scope, action)


def _has_two_lengths(incoming: Request) -> bool:
    return "Transfer-Encoding" in incoming.headers and "Content-Length" in incoming.headers


def check_key(incoming: Request, keys: Collection[str]) -> None:
    """Raise MissingApiKeyError or InvalidApiKeyError unless the request carries one of `keys`."""
    scheme, _, given = incoming.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise MissingApiKeyError("this needs the header Authorization: Bearer <token>")
    # Every key is compared, so that the time taken does not reveal which one was near.
    if sum(tokens.matches(given.strip(), key) for key in keys) == 0:
        raise InvalidApiKeyError("authentication failed: the key is wrong")


def _translate(error: HTTPException) -> RbeeError:
    match error:
        case RequestEntityTooLarge():
            return PayloadTooLargeError(
                f"the request body is larger than {MAX_BODY_BYTES} bytes", field="$", rule=f"<= {MAX_BODY_BYTES} bytes"
            )
        case NotFound():
            return RouteNotFoundError("there is no such path", field="path", rule="a documented path")
        case MethodNotAllowed():
            allowed = sorted(error.valid_methods or [])
            return MethodNotAllowedError("the path does not take this method", field="method", rule=", ".join(allowed))
        case _ if error.code is not None and 400 <= error.code < 500:
            refused = InvalidRequestError("the request is not valid HTTP for this path", field="$", rule="valid HTTP")
            refused.status = error.code  # type: ignore[misc]
            return refused
        case _:
            return InternalError("the daemon failed; its log says more")


def failure(error: RbeeError) -> Response:
    """Return the answer for an error; one that says when to ask again is 429 with that time."""
    g.failed = error
    retry_after = error.retry_after if isinstance(error, AllSlotsBusyError) else None
    response = answer(to_body(error, correlation.get()), error.status if retry_after is None else 429)
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def answer(message: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(msgspec.json.encode(message), status, content_type="application/json")


def empty(status: int) -> Response:
    """Return an answer without a body."""
    response = Response(b"", status)
    del response.headers["Content-Type"]
    return response


def wants_stream() -> bool:
    """Whether the client asks for an event stream."""
    return EVENT_STREAM in request.headers.get("Accept", "")


def client_connection() -> ClientConnection:
    """Return the connection over which the request came that is being answered."""
    return connection_of(request.scope)


def proof(token: str, role: str) -> str | None:
    """Return the proof for the request's challenge, if it has one."""
    asked = request.headers.get(CHALLENGE_HEADER, "")
    return http_proof.answer(asked, client_connection().own_address, token, role)


def streamed(
    nursery: trio.Nursery,
    produce: Callable[[sse_server.Send], Awaitable[object]],
    *,
    heartbeat: float = 10.0,
    headers: dict[str, str] | None = None,
) -> Response:
    """Answer with an event stream; see `sse_server.stream`. To a HEAD request its head is the whole answer."""
    return Response(
        b""
        if request.method == "HEAD"
        else sse_server.stream(nursery, produce, heartbeat=heartbeat, write=client_connection().write_through),
        content_type=EVENT_STREAM,
        # A proxy before us is not to hold events back until it has some kilobytes of them (nginx: proxy_buffering).
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
    )


async def body(kind: type[T]) -> T:
    """Read and check the request's body; see `raw_body`."""
    return decode(await raw_body(), kind)


async def raw_body() -> bytes:
    """Read the request's body, which has to move: MIN_BODY_BYTES in each BODY_SECONDS, or its end.

    Quart's own limit is 60 s for all of it, in which a slow line brings no piece of a model. One that is packed is
    refused (RFC 9110, section 15.5.16): the limit of its size would bound nothing.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        packed = InvalidRequestError(
            "the request's body is packed, as its Content-Encoding says: send it as it is",
            field="$",
            rule="a body without Content-Encoding",
        )
        packed.status = 415  # type: ignore[misc]
        raise packed
    content = cast("FedRequest", request).body
    if content.is_whole:
        data = await content
        content.clear()
        return cast("bytes", data)
    while True:
        before = client_connection().received
        with trio.move_on_after(BODY_SECONDS):
            data = await request.get_data(cache=False)
            assert isinstance(data, bytes)
            return data
        if client_connection().received < before + MIN_BODY_BYTES:
            refused = InvalidRequestError(
                f"the request's body did not come: less than {MIN_BODY_BYTES} bytes of it in {BODY_SECONDS:g} s",
                field="$",
                rule="a body that moves",
            )
            refused.status = 408  # type: ignore[misc]
            raise refused
