"""Takes the pieces of a request from hypercorn to the application that answers it.

Hypercorn's own way is a channel, whose pieces quart has read by a task of its own: five steps of trio's loop before a
request's body is there, some 50 us each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from hypercorn.trio.task_group import TaskGroup, _handle
from quart_trio.wrappers.request import TrioBody, TrioRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Any

    from hypercorn.config import Config
    from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope


class RequestBody(TrioBody):
    """The body of a request; one that has come as a whole is awaited without a step of trio's loop."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come, or more than may come."""
        return self._complete.is_set()

    async def wait_whole(self, seconds: float) -> None:
        """Wait for so long until all of it has come."""
        with trio.move_on_after(seconds):
            await self._complete.wait()

    def __await__(self) -> Generator[Any, None, Any]:
        if self.is_whole and self._must_raise is None:
            return bytes(self._data)
        return (yield from super().__await__())


class FedRequest(TrioRequest):
    body_class = RequestBody
    body: RequestBody


class RequestFeed:
    """What comes of one request: `put` is for hypercorn, all else for the application, which gets it as `receive`."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        """Cancelled when the client has gone, or has its answer."""
        self._body: RequestBody | None = None
        self._early: list[ASGIReceiveEvent] = []

    async def put(self, event: ASGIReceiveEvent) -> None:
        if event["type"] == "http.disconnect":
            self.scope.cancel()
        elif self._body is None:
            self._early.append(event)
        else:
            _add(self._body, event)

    def fill(self, body: RequestBody) -> None:
        """Put what has come, and all that comes, into a request's body."""
        self._body = body
        for event in self._early:
            _add(body, event)
        self._early.clear()


def _add(body: RequestBody, event: ASGIReceiveEvent) -> None:
    if event["type"] == "http.request":
        body.append(event.get("body", b""))
        if not event.get("more_body", False):
            body.set_complete()


async def spawn_app(
    group: TaskGroup,
    app: AppWrapper,
    config: Config,
    scope: Scope,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
    """Do what `TaskGroup.spawn_app` does, with a feed for requests; returns what takes their pieces."""
    if scope["type"] != "http":
        return await TaskGroup.spawn_app(group, app, config, scope, send)
    feed = RequestFeed()
    group.spawn(_handle, app, config, scope, feed, send, trio.to_thread.run_sync, trio.from_thread.run)
    return feed.put
