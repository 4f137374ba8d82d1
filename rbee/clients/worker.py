"""Talks to a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.clients.base import Connected
from rbee.clients.progress import progress_of
from rbee.errors import InternalError
from rbee.wire import worker
from rbee.wire.chat.answer import ANSWER_EVENT_TYPES, AnswerEvent
from rbee.wire.common import CACHE_SALT_HEADER, KEEP_HEADER, Health

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.http.event_parser import Event
    from rbee.wire.progress import ProgressEvent


class _Event(msgspec.Struct):
    """A token or the end; which one, the fields tell."""

    token: str | None = None
    index: int = 0
    done: bool = False
    total_tokens: int = 0
    duration_ms: float = 0.0
    stop_reason: worker.StopReason = "length"
    timings: worker.Timings | msgspec.UnsetType = msgspec.UNSET
    context: worker.FullContext | msgspec.UnsetType = msgspec.UNSET


class _Typed(msgspec.Struct):
    type: str


_ANSWER_EVENTS: Final[msgspec.json.Decoder[AnswerEvent]] = msgspec.json.Decoder(AnswerEvent)


class WorkerClient(Connected):
    """A worker at a URL, opened by its own key; `async with` closes its connections."""

    async def ready(self) -> worker.Readiness:
        return await self._get(worker.READY, worker.Readiness)

    def loading(self, path: str) -> AbstractAsyncContextManager[sse_client.EventStream]:
        return sse_client.events(self._http, "GET", path)

    def inference(
        self, request: worker.InferenceRequest, *, keep: float | None = None, salt: str = ""
    ) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of a generation; `decode` reads its events. Leaving the block ends the generation.

        The worker stays for `keep` seconds without a request, if that says so. What it has computed is of use to
        requests with the same `salt` alone.
        """
        headers = inference_headers(request, keep, salt)
        return sse_client.events(self._http, "POST", worker.INFERENCE, body=request, headers=headers)

    async def cancel(self, request_id: str) -> None:
        """Stop a generation; it has stopped when this returns."""
        await http_client.call(self._http, "DELETE", f"{worker.INFERENCE}/{request_id}", bytes)

    async def tell_reader(self, request_id: str, *, is_silent: bool) -> None:
        """Say whether the client that a generation is read for takes nothing any more."""
        said = worker.Reader(silent=is_silent)
        await http_client.call(self._http, "POST", f"{worker.INFERENCE}/{request_id}/reader", bytes, body=said)

    async def follow(self, on_status: Callable[[worker.WorkerStatus], None]) -> None:
        """Follow the worker's event stream: call `on_status` with its state, then with each change.

        Returns when the worker ends the stream; raises StreamLostError or ConnectionTimeoutError when it is lost.
        """
        async with sse_client.events(self._http, "GET", worker.EVENTS) as events:
            async for event in events:
                on_status(sse_client.decode_event(event.data, worker.WorkerStatus))

    async def health(self) -> Health:
        """Ask once who answers at the URL, which needs no key."""
        return await http_client.call(self._http, "GET", worker.HEALTH, Health)

    async def shut_down(self, *, only_if_idle: bool = False) -> None:
        """Tell the worker to drain, unload and exit; returns when it has accepted.

        With `only_if_idle` it refuses with ModelInUseError where it has a request.
        """
        path = f"{worker.SHUTDOWN}?{worker.ONLY_IF_IDLE}" if only_if_idle else worker.SHUTDOWN
        await http_client.call(self._http, "POST", path, bytes)


def inference_headers(request: worker.InferenceRequest, keep: float | None = None, salt: str = "") -> dict[str, str]:
    """Return what the head of a request for a generation says of it: its id, and the arguments of `inference`."""
    headers = {worker.REQUEST_ID_HEADER: request.request_id} if request.request_id else {}
    if keep is not None:
        headers[KEEP_HEADER] = str(keep)
    if salt:
        headers[CACHE_SALT_HEADER] = salt
    return headers


def decode_answer(event: Event) -> AnswerEvent | None:
    """Decode an event of an answer that is typed; raises the error it carries.

    None stands for progress, and for an event of a newer version.
    """
    if event.name != "message":
        return None
    try:
        return _ANSWER_EVENTS.decode(event.data)
    except (msgspec.MsgspecError, RecursionError):
        # Raises, unless it says of itself that it is something else.
        is_known = sse_client.decode_event(event.data, _Typed).type in ANSWER_EVENT_TYPES
    if is_known:
        raise InternalError("the answer is not what this version of rbee expects")
    return None


def decode(event: Event) -> worker.Token | worker.Done | ProgressEvent | None:
    """Decode an event of a generation; raises the error it carries. None stands for an event of a newer version."""
    if (progress := progress_of(event)) is not None:
        return progress
    found = sse_client.decode_event(event.data, _Event)
    if found.token is not None:
        return worker.Token(token=found.token, index=found.index)
    if found.done:
        return worker.Done(
            total_tokens=found.total_tokens,
            duration_ms=found.duration_ms,
            stop_reason=found.stop_reason,
            timings=found.timings,
            context=found.context,
        )
    return None
