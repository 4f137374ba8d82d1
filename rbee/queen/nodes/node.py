"""One node as the rest of the queen asks it: for a worker, for its hive, and for what runs there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import keep_running
from rbee.concurrency.outcome import Outcome
from rbee.errors import ConnectionTimeoutError, RbeeError
from rbee.queen.hives.follower import HiveFollower
from rbee.queen.hives.link import Absence, no_sources
from rbee.queen.hives.mirror import HiveMirror, devices_of
from rbee.queen.scheduling.choose_node import Candidate
from rbee.queen.scheduling.node_loop import NodeLoop
from rbee.queen.scheduling.place_request import MOST_OF_WAIT, HiveRequest, Placed, PlaceRequest
from rbee.queen.scheduling.shared_line import SharedLine
from rbee.wire.hive import HiveEvent, WorkerGone, WorkerRow
from rbee.wire.model_copy import Source
from rbee.wire.queen import LOCAL_NODE
from rbee.wire.worker import EndedRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.clients.hive import HiveClient
    from rbee.narrower_errors import LineFullError
    from rbee.queen.hives.link import Find, HiveLink
    from rbee.queen.hives.mirror import Devices
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.prompt_links import PromptLinks
    from rbee.wire.hive import WorkerList
    from rbee.wire.models import ModelRow
    from rbee.wire.progress import Report

log = logging.getLogger(__name__)

MAX_WAITING: Final = 100
ANSWER_SECONDS: Final = 2.0
"""For a hive to answer that it is there, where a command asks what there is."""


OnEvent = Callable[[HiveEvent | None, list[WorkerRow | WorkerGone]], None]
"""Takes an event of a node's hive, and which workers have changed with it; None stands for a stream that was lost."""


class HiveNotRunningError(ConnectionTimeoutError):
    """No hive runs on this host, where that is known for sure; a request that needs one starts it."""


class HiveAbsentError(ConnectionTimeoutError):
    """The hive of another machine does not answer."""

    def __init__(self, name: str, message: str, absence: Absence) -> None:
        hint = f'`rbee infer --node {name} --prompt "…"` starts it where it does not run, and says why where it cannot'
        super().__init__(message, hint=hint, node=name)
        self.absence = absence


class Node:
    """One node, while `run` runs.

    `on_event` takes what its hive reports; `find_sources` says which other nodes have a model.
    `mirror` shows the workers of its hive; `line` is that of all nodes.
    """

    def __init__(
        self,
        name: str,
        hive: HiveLink,
        *,
        max_waiting: int = MAX_WAITING,
        on_event: OnEvent = lambda _, __: None,
        find_sources: Find = no_sources,
        line: SharedLine | None = None,
    ) -> None:
        self.name = name
        self._line = line or SharedLine()
        self._hive = hive
        self._on_event = on_event
        self._follower = HiveFollower(hive)
        self.mirror = HiveMirror()
        self._devices: Devices | None = None
        self._loop = NodeLoop(name, hive, self._follower, self.mirror, max_waiting, find_sources, self._line)
        self.find_sources = find_sources
        self._line.add(name, self._loop)

    async def run(self) -> None:
        """Follow the hive and place requests until cancelled; those that wait then get DrainingError."""
        correlation.set(None)  # of the request that has registered the node: what follows is not done for that one
        async with trio.open_nursery() as nursery:
            following = partial(self._follower.run, self._on_hive_event)
            nursery.start_soon(keep_running, f"following the hive of {self.name}", following)
            nursery.start_soon(self._loop.run)

    def stop_placing(self) -> None:
        """Take no more requests, and answer those that wait.

        The hive is followed on until it has ended: requests that were sent to its workers may ask how those ended.
        """
        self._line.remove(self.name)
        self._loop.stop()
        self._follower.stop_when_lost()

    def _on_hive_event(self, event: HiveEvent | None) -> None:
        changes = self.mirror.on_hive_event(event)
        if isinstance(event, EndedRequest):
            self._line.known.on_ended(event)
        elif isinstance(event, WorkerGone):
            self._line.known.forget(event.id)
        self._on_event(event, changes)
        self._loop.on_hive_event(event)

    async def place(
        self,
        wanted: Wanted,
        report: Report,
        wait: float = 0,
        *,
        must_ask: bool = False,
        may_move: bool = False,
        caller: str = "local",
        is_batch: bool = False,
        since: float | None = None,
        prompt: PromptLinks | None = None,
        patience: float = 0.0,
    ) -> Placed:
        """Return a worker for `wanted`, started if need be; what happens meanwhile is reported.

        Where all its slots are taken, the request waits up to `wait` seconds for one; without, it is sent there all the
        same, and the worker answers for itself. Slots go round callers, of which `caller` is one;
        among its requests those that came first (`since`) go first, and those that nobody waits for (`is_batch`) after
        all others. With `must_ask` the
        hive itself is asked for its workers: what its event stream showed has sent this request to a worker in vain.
        With `may_move` it is a worker of another node if one of those has a free slot first, after `patience` seconds.
        `prompt` is what its prompt is known by: a worker that has read the beginning is preferred.
        Raises AllSlotsBusyError when the wait was in vain, or too many wait.
        """
        placed: Outcome[Placed] = Outcome()
        request = PlaceRequest(
            wanted,
            wait,
            report,
            placed.settle,
            correlation.get(),
            may_move,
            caller,
            is_batch,
            prompt,
            (since or trio.current_time()) + min(patience, wait * MOST_OF_WAIT) if patience else None,
            since,
            must_ask=must_ask,
        )
        self._loop.take(request)
        try:
            return await placed.wait()
        finally:
            if not placed.is_settled:
                self._loop.give_up(request)

    def why_full(self, wanted: Wanted, caller: str) -> LineFullError | None:
        """Return why a request that would wait for a slot here would be refused now, if it would."""
        return self._loop.why_full(wanted, caller)

    @property
    def is_direct(self) -> bool:
        """Whether others reach the node's workers too, or only the queen."""
        return self._hive.is_direct

    @property
    def is_here(self) -> bool:
        """Whether its hive runs on the queen's own host."""
        return self._hive.is_here

    @property
    def version(self) -> str:
        """The version of its hive, once it has answered."""
        return self._hive.version

    @property
    def is_everywhere(self) -> bool:
        """Whether its workers listen on every address of the queen's own host, whatever their URLs say."""
        return self._hive.is_everywhere

    def worker_url(self, url: str) -> str:
        """Return the URL at which the queen reaches a worker of this node."""
        return self._hive.worker_url(url)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[HiveClient]:
        """Open a connection to the node's hive; starts nothing.

        Raises ConnectionTimeoutError when it does not answer within ANSWER_SECONDS, or why it cannot be used.
        """
        url = None
        with trio.move_on_after(ANSWER_SECONDS) as patience:
            url = await self._hive.find()
        if patience.cancelled_caught:
            message = f"the hive on {self.name} did not answer within {ANSWER_SECONDS:g} s"
            raise HiveAbsentError(self.name, message, Absence("unreachable", message))
        if url is None and self.name == LOCAL_NODE:
            raise HiveNotRunningError("no hive is running on this host", hint="the first request starts it")
        if url is None:
            absence = self._hive.absence
            raise HiveAbsentError(self.name, f"no hive answers on node {self.name}: {absence.reason}", absence)
        async with self._hive.connect(url) as client:
            yield client

    async def answers(self) -> bool:
        """Return whether the node's hive says that it is there, in at most ANSWER_SECONDS."""
        return await self._follower.answers(ANSWER_SECONDS)

    async def candidate(self, reference: str) -> Candidate:
        """Return what the node could do for a request with a model, in at most ANSWER_SECONDS; starts nothing.

        A node whose hive did not answer at the last try costs no time.
        """
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                if await self._follower.is_followed():
                    async with self.connect() as client:
                        self._devices = devices_of(await client.backends())
                        offers = await client.offers(reference)
                        if self.mirror.is_live:
                            return (await self.known_candidate())._replace(has_model=offers.is_here, file=offers.file)
            except RbeeError as exc:
                log.info("the hive of %s says nothing of itself: %s", self.name, exc.message)
        return await self.absent_candidate()

    async def refresh(self, reference: str, report: Report) -> None:
        """Have a copy of a user's file that the node has brought up to date, if its hive runs."""
        try:
            if await self._follower.is_followed():
                async with self.connect() as client:
                    await self.find_sources(client, reference, report)
        except ConnectionTimeoutError as exc:
            log.info("the hive of %s does not say which file it has: %s", self.name, exc.message)

    async def absent_candidate(self) -> Candidate:
        """Return what the node could do if its hive were started."""
        return Candidate(self.name, False, [], await self._hive.devices())

    async def known_candidate(self) -> Candidate:
        """Return what the node could do as far as is known without asking; how much memory is free may be outdated."""
        if self._devices is None:
            self._devices = await self._hive.devices()
        return Candidate(self.name, self.mirror.is_live, self.known_workers() or [], self._devices)

    async def source(self, reference: str, target: Node) -> Source | None:
        """Say what `target` may copy from here of a model's repository, in at most ANSWER_SECONDS; starts nothing.

        None where there is nothing, or no way between the two: only the queen's own host can use its way through SSH.
        """
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                if await self._follower.is_followed():
                    async with self.connect() as hive:
                        url = hive.url if target.is_here else self._hive.outside(hive.url)
                        if url is not None and (models := (await hive.offers(reference)).models):
                            return Source(node=self.name, url=url, models=models)
            except RbeeError as exc:
                log.info("the hive of %s does not say which models it has: %s", self.name, exc.message)
        return None

    async def catalogue(self) -> list[ModelRow]:
        """Return the models on the node's disk, in at most ANSWER_SECONDS; starts nothing.

        None where its hive does not answer; one that did not at the last try costs no time.
        """
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                if await self._follower.is_followed():
                    async with self.connect() as hive:
                        return await hive.models()
            except RbeeError as exc:
                log.info("the hive of %s does not say which models it has: %s", self.name, exc.message)
        return []

    @asynccontextmanager
    async def ensure_hive(self, report: Report) -> AsyncIterator[HiveClient]:
        """Open a connection to the node's hive, which is started if need be. Raises why it could not be."""
        found: Outcome[str] = Outcome()
        request = HiveRequest(report, found.settle, correlation.get())
        self._loop.take_hive_request(request)
        try:
            url = await found.wait()
        finally:
            if not found.is_settled:
                self._loop.give_up(request)
        async with self._hive.connect(url) as client:
            yield client

    def known_workers(self) -> list[WorkerRow] | None:
        """Return the workers as the hive's event stream shows them; None where that is not held."""
        return list(self.mirror.rows.values()) if self.mirror.is_live else None

    async def worker(self, worker_id: str) -> WorkerRow | None:
        """Return a worker of the node, which is asked for it where its event stream has not shown it."""
        if (row := self.mirror.rows.get(worker_id)) is not None:
            return row
        workers = await self.workers()
        return next((row for row in workers.workers if row.id == worker_id), None) if workers is not None else None

    async def workers(self) -> WorkerList | None:
        """Return the node's workers, or None when its hive does not answer; starts nothing."""
        try:
            async with self.connect() as client:
                return await client.workers()
        except ConnectionTimeoutError as exc:
            log.debug("the hive of %s: %s", self.name, exc)
        except RbeeError as exc:
            log.warning("the hive of %s: %s", self.name, exc)
        return None
