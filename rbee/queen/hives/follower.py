"""Holds the event stream of one hive for as long as it runs, and takes it up again with the next."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.http.sse_client import StreamLostError
from rbee.concurrency.background import open_background
from rbee.concurrency.changed import Changed
from rbee.concurrency.contained import as_error, contained

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.clients.hive import HiveClient
    from rbee.queen.hives.link import HiveLink
    from rbee.wire.hive import HiveEvent

log = logging.getLogger(__name__)

SEARCH_SECONDS: Final = 10.0
"""How often to try whether a hive is there that another queen or a user has started."""
FRESH_SECONDS: Final = 0.25
VALID_SECONDS: Final = 1.0
"""How long the answer of a hive that it is there is good for: to ask costs as much as to place a request. One that is
not fresh any more is good enough, but the hive is asked anew meanwhile."""
ASIDE_SECONDS: Final = 0.05
"""How much later it is asked then."""
RECONNECT_SECONDS: Final = 0.5
"""Before another try after a stream was lost; doubled with each that fails."""


class HiveFollower:
    """Passes on what a hive reports by itself."""

    def __init__(self, hive: HiveLink) -> None:
        self._hive = hive
        self._reason_to_try = trio.Event()
        self._has_tried = trio.Event()
        self._is_followed = False
        self._is_last = False
        self._client: HiveClient | None = None
        self._must_ask = trio.Event()
        self._has_asked = Changed()
        self._answered_at = -math.inf

    async def is_followed(self) -> bool:
        """Return whether the hive answers, as far as is known; waits for the first try only."""
        await self._has_tried.wait()
        return self._is_followed

    async def answers(self, seconds: float) -> bool:
        """Ask the hive that is followed whether it is there; it has so many seconds.

        Its event stream shows that only half a minute later.
        """
        if (client := self._client) is None:
            return False
        age = trio.current_time() - self._answered_at
        if age >= FRESH_SECONDS:
            self._must_ask.set()
        if age >= VALID_SECONDS:
            with trio.move_on_after(seconds) as patience:
                await self._has_asked.next.wait()
            if patience.cancelled_caught:
                return False
        return self._client is client and self._answered_at > -math.inf

    async def _ask(self, client: HiveClient) -> None:
        """Ask the hive whether it is there each time that somebody wants to know."""
        while True:
            await self._must_ask.wait()
            if trio.current_time() - self._answered_at < VALID_SECONDS - ASIDE_SECONDS:
                # Who wants to know has its answer, and goes first: to ask takes as long as half of a request.
                await trio.sleep(ASIDE_SECONDS)
            try:
                await client.health(patient=False)
                self._answered_at = trio.current_time()
            except Exception as exc:  # noqa: BLE001 (its stream goes on; whoever wants to know takes it for silent)
                error = as_error(exc, "asking a hive whether it is there")
                log.info("a hive that is followed does not answer: %s", error.message)
                self._answered_at = -math.inf
            self._must_ask = trio.Event()
            self._has_asked.notify()

    def wake(self) -> None:
        """A hive answers now: follow it without waiting for the next try."""
        self._reason_to_try.set()

    def stop_when_lost(self) -> None:
        """The hive is to end: it is followed until then, and no other one after it."""
        self._is_last = True
        self._reason_to_try.set()

    async def run(self, on_event: Callable[[HiveEvent | None], None]) -> None:
        """Pass on each event, and None when the stream was lost; runs until cancelled or stopped."""
        pause = RECONNECT_SECONDS
        while not self._is_last:
            self._reason_to_try = trio.Event()
            if await self._follow(on_event):
                pause = RECONNECT_SECONDS
            self._is_followed = False
            self._has_tried.set()
            with trio.move_on_after(pause):
                await self._reason_to_try.wait()
            pause = min(2 * pause, SEARCH_SECONDS)

    async def _follow(self, on_event: Callable[[HiveEvent | None], None]) -> bool:
        """Follow the hive while it answers; returns whether it did."""
        was_followed = False

        def pass_on(event: HiveEvent) -> None:
            nonlocal was_followed
            was_followed = self._is_followed = True
            self._has_tried.set()
            on_event(event)

        with contained("following a hive", lambda error: log.debug("the hive's events: %s", error)):
            try:
                if (url := await self._hive.find()) is not None:
                    async with self._hive.connect(url) as client:
                        self._client = client
                        try:
                            async with open_background() as nursery:
                                nursery.start_soon(self._ask, client)
                                await client.follow(pass_on)
                        finally:
                            self._client = None
                            self._answered_at = -math.inf
                            self._has_asked.notify()
            except StreamLostError as exc:
                log.debug("the hive's events: %s", exc)
        if was_followed:
            on_event(None)
        return was_followed
