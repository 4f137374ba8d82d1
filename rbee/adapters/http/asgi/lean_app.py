"""Quart, without what no daemon uses of it: sessions, blueprints, signals, subdomains, and work at a context's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from quart import Response
from quart.ctx import AppContext, RequestContext
from quart.globals import _cv_app, _cv_request
from quart.sessions import NullSession
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException

from rbee.adapters.http.asgi.request_feed import FedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
    from quart import Request
    from quart.routing import QuartRule
    from quart.typing import ResponseReturnValue, ResponseTypes
    from quart.wrappers import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter

    from rbee.adapters.http.asgi.request_feed import RequestFeed

_AT_END: Final = "rbee.at_end"
"""Where a request's ASGI scope holds what is to be done at its end."""
_NO_SESSION: Final = NullSession()
BODY_SECONDS: Final = 0.1
"""How long the body of a request that is answered without it is waited for: most clients send it right after the head,
and hypercorn closes a connection on which one is still to come."""


def add_at_end(scope: Any, action: Callable[[], object]) -> None:
    """Have `action` called once the answer to the request of this ASGI scope has been sent, or its client has gone."""
    scope.setdefault(_AT_END, []).append(action)


class _HttpConnection(TrioASGIHTTPConnection):
    """A request and its answer, with what is to be done at their end; see `add_at_end`.

    It is answered by the task that has it, and nothing runs beside that: quart-trio's own way opens two more.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        feed = cast("RequestFeed", receive)
        try:
            incoming = cast("FedRequest", self._create_request_from_scope(send))
            feed.fill(incoming.body)
            with feed.scope:
                response = await self.app.handle_request(incoming)
                if not incoming.body.is_whole:
                    await incoming.body.wait_whole(BODY_SECONDS)
                    if not incoming.body.is_whole and incoming.http_version == "1.1":
                        response.headers["Connection"] = "close"  # or the client would send its next one there
                await self._send_response(send, response)
        finally:
            for action in cast("dict[str, Any]", self.scope).get(_AT_END, ()):
                action()


class _Context(RequestContext):
    """What `request` and `g` stand for while a request is answered."""

    def __init__(self, app: LeanApp, request: Request) -> None:
        super().__init__(app, request, _NO_SESSION)

    async def push(self) -> None:
        self._tokens = _cv_app.set(AppContext(self.app)), _cv_request.set(self)
        self.match_request()

    async def pop(self, exc: BaseException | None = None) -> None:  # noqa: ARG002 (nothing is done with it)
        app, request = self._tokens
        _cv_request.reset(request)
        _cv_app.reset(app)

    def match_request(self) -> None:
        request = self.request_websocket
        try:
            found = cast("MapAdapter", self.url_adapter).match(request.path, request.method, return_rule=True)
            request.url_rule, request.view_args = cast("tuple[QuartRule, dict[str, Any]]", found)
        except HTTPException as exc:
            request.routing_exception = exc


class LeanApp(QuartTrio):
    """An application whose hooks and routes are coroutine functions, and whose answers take as long as they take."""

    asgi_http_class = _HttpConnection
    request_class = FedRequest
    _routes: MapAdapter | None = None

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Return what finds routes: one for all hosts, since who asks by the wrong name is told so in our own words."""
        if request is None or request.method == "OPTIONS" or not isinstance(request, FedRequest):
            return super().create_url_adapter(request)
        if self._routes is None:
            self._routes = self.url_map.bind("localhost")
        return self._routes

    def request_context(self, request: Request) -> RequestContext:
        return _Context(self, request)

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> ResponseTypes:
        result: ResponseReturnValue | HTTPException | None = None
        try:
            for function in self.before_request_funcs[None]:
                if (result := await function()) is not None:  # type: ignore[misc]
                    break
            else:
                result = await self.dispatch_request(request_context)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 (it is answered)
            result = await self.handle_user_exception(error)
        response = result if isinstance(result, Response) else await self.make_response(result)
        return await self.process_response(response, request_context)

    async def process_response(
        self,
        response: ResponseTypes,
        request_context: RequestContext | None = None,  # noqa: ARG002 (quart has it)
    ) -> ResponseTypes:
        for function in reversed(self.after_request_funcs[None]):
            response = await function(response)
        return response
