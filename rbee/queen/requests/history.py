"""The stories of the last requests: in memory, and in a file of their own from one queen to the next."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee.adapters.http import sse_server
from rbee.adapters.store.sqlite import AddedTable
from rbee.concurrency.changed import Changed
from rbee.concurrency.contained import keep_running
from rbee.errors import InvalidRequestError, NotFoundError, StorageError
from rbee.wire.administration.requests import RequestStory

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from rbee.adapters.store.sqlite import Store
    from rbee.queen.requests.record import RequestRecord
    from rbee.wire.administration.requests import RequestInfo, RequestQuery

log = logging.getLogger(__name__)

KEPT: Final = 1000
"""Requests that are remembered: with their stories, about 2 MB in memory and on the disk."""
MAX_REFUSALS: Final = 200
"""Of them, of callers that were not let in."""
WRITE_SECONDS: Final = 2.0
"""Ended requests are written down together, this often at most."""
MIN_ID: Final = 8
"""Characters of an id that identify it."""
TABLE: Final = AddedTable("requests", "CREATE TABLE requests (number INTEGER PRIMARY KEY, story TEXT NOT NULL);")


class RequestHistory:
    """The requests that run, and the last ones that ended, in the order of their ends; `run` writes those down.

    What is on the disk is a copy, for the next queen: one that cannot be read or written costs the memory of a restart.
    `open_store` opens it, in the background; without, nothing outlasts the queen.
    """

    def __init__(self, open_store: Callable[[], Awaitable[Store]] | None = None) -> None:
        self._open_store = open_store
        self._running: dict[RequestRecord, None] = {}
        self._ended: deque[RequestStory] = deque(maxlen=KEPT)
        self._count = 0
        """How many have ended here."""
        self._unwritten: deque[RequestStory] = deque(maxlen=KEPT)
        self._changed = Changed()
        self._was_ended = trio.Event()
        self._closed = trio.Event()
        self._is_read = trio.Event()
        if open_store is None:
            self._is_read.set()

    def begin(self, record: RequestRecord) -> None:
        """A request has come."""
        if record.is_for_text:
            self._running[record] = None

    def end(self, record: RequestRecord) -> None:
        """A request is over."""
        if not record.is_for_text:
            return
        self._running.pop(record, None)  # one that was refused at once has never run
        story = record.story()
        if record.caller is None:
            self._make_room_for_refusal()
        self._ended.append(story)
        self._unwritten.append(story)
        self._count += 1
        self._was_ended.set()
        self._changed.notify()

    def _make_room_for_refusal(self) -> None:
        """Forget the oldest refusal where there are too many: they must not push everything else out."""
        refusals = [number for number, story in enumerate(self._ended) if story.request.caller is None]
        if len(refusals) >= MAX_REFUSALS:
            del self._ended[refusals[0]]

    async def last(self, count: int) -> list[RequestInfo]:
        """Return so many of the last requests, the oldest first; those that run come last."""
        await self._is_read.wait()
        ended = [story.request for story in self._ended] + [record.info() for record in self._running]
        return ended[max(0, len(ended) - count) :]

    async def find(self, request_id: str) -> RequestStory:
        """Return the last request of this id, or with this beginning. Raises NotFoundError.

        The name that a dialect gives the answer, as `chatcmpl-…`, is taken too.
        """
        wanted = request_id.lower().rpartition("_")[2]
        wanted = next((wanted.removeprefix(one) for one in ("chatcmpl-", "cmpl-") if wanted.startswith(one)), wanted)
        plain = wanted.replace("-", "")
        if len(plain) < MIN_ID:
            raise InvalidRequestError(
                f"at least the first {MIN_ID} characters of an id are expected",
                hint="`rbee requests` shows the last ones",
                field="request_id",
                rule=f">= {MIN_ID}",
            )
        await self._is_read.wait()
        for record in reversed(self._running):
            if _is_meant(record.id, plain):
                return record.story()
        for story in reversed(self._ended):
            if _is_meant(story.request.id, plain):
                return story
        raise NotFoundError("nothing is known of a request with this id", hint="`rbee requests` shows the last ones")

    async def follow(self, query: RequestQuery, send: sse_server.Send) -> None:
        """Send the last requests that have ended, and with `follow` each that ends, until cancelled."""
        await self._is_read.wait()
        sent = self._count - query.lines
        while True:
            changed, behind = self._changed.next, min(self._count - sent, len(self._ended))
            sent = self._count
            for story in list(islice(self._ended, len(self._ended) - behind, None)):
                await send.send(sse_server.event(story.request))
            if not query.follow:
                return
            await changed.wait()

    def close(self) -> None:
        """Have `run` return once everything is written, or has been tried once more."""
        self._closed.set()
        self._was_ended.set()

    async def run(self) -> None:
        """Read what the queen before has left, and write down what has ended, until `close`."""
        if self._open_store is not None:
            await keep_running("writing down what became of requests", partial(self._keep, self._open_store))

    async def _keep(self, open_store: Callable[[], Awaitable[Store]]) -> None:
        try:
            store = await open_store()
            number = await self._load(store)
        except StorageError as exc:
            log.warning("%s: what becomes of requests is forgotten when the queen ends", exc.message)
            return
        finally:
            self._is_read.set()
        is_failing = False
        while True:
            await self._was_ended.wait()
            self._was_ended = trio.Event()
            with trio.move_on_after(WRITE_SECONDS):
                await self._closed.wait()
            is_last = self._closed.is_set()
            try:
                number = await self._write(store, number)
            except StorageError as exc:
                if not is_failing:
                    log.warning("%s; what became of requests is written down later", exc.message)
                is_failing = True
                self._was_ended.set()
            else:
                is_failing = False
            if is_last:
                return

    async def _load(self, store: Store) -> int:
        """Put what is on the disk before what has ended meanwhile; returns the number of the last one there."""
        query = "SELECT number, story FROM requests ORDER BY number DESC LIMIT ?"
        rows = await store.transact(lambda connection: connection.execute(query, (KEPT,)).fetchall())
        for _, text in rows:
            if len(self._ended) == KEPT:
                break
            try:
                self._ended.appendleft(msgspec.json.decode(text, type=RequestStory))
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
                log.warning("the story of a request is damaged, and left out")
        return int(rows[0][0]) if rows else 0

    async def _write(self, store: Store, number: int) -> int:
        """Store what is not stored yet, from the number after this one on; returns the last number."""
        stories = list(self._unwritten)
        rows = [(at, msgspec.json.encode(story).decode()) for at, story in enumerate(stories, number + 1)]
        number += len(rows)

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO requests (number, story) VALUES (?, ?)", rows)
            connection.execute("DELETE FROM requests WHERE number <= ?", (number - KEPT,))

        await store.transact(work)
        while self._unwritten and stories and self._unwritten[0] is stories[0]:
            self._unwritten.popleft()
            del stories[0]
        return number


def _is_meant(request_id: str, plain: str) -> bool:
    return request_id.replace("-", "").startswith(plain)
