"""Passes a worker's answer through the queen, for callers that cannot reach the worker."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rbee.adapters.http import sse_client
from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import ConnectionTimeoutError, RbeeError, VersionMismatchError, WorkerFailedError
from rbee.narrower_errors import UnknownFieldError
from rbee.queen.requests.events import Generated

if TYPE_CHECKING:
    from rbee.adapters.config import Timeouts
    from rbee.adapters.http.connection import ClientConnection
    from rbee.adapters.http.event_parser import Event
    from rbee.adapters.http.kept_connections import KeptConnections
    from rbee.queen.requests.events import Taker
    from rbee.wire.progress import Report
    from rbee.wire.queen import TaskRequest


class WorkerRelay(WorkerClient):
    """A worker of some node at the URL at which the queen reaches it."""

    def __init__(
        self, worker_id: str, node: str, url: str, key: str, limits: Timeouts, connections: KeptConnections
    ) -> None:
        super().__init__(url, key, timeout=limits.call, delays=limits.call_delays, connections=connections)
        self.worker_id = worker_id
        self._node = node
        self._limits = limits

    async def wait_ready(self, report: Report) -> None:
        """Return once the worker has loaded its model; reports how that goes on."""
        try:
            # The hive counts too, from an earlier moment on, knows the layers, and needs a moment to end the worker.
            await wait_ready(self, report, self._limits, grace=self._limits.unload)
        except RbeeError as exc:
            exc.details = {"node": self._node, "log": f"worker-{self.worker_id}.log"} | exc.details
            raise

    async def relay(
        self, taker: Taker, task: TaskRequest, client: ClientConnection, *, keep: float | None = None, salt: str = ""
    ) -> None:
        """Run the request at the worker and have its events taken as they come.

        The worker is told when `client` takes nothing any more, and when it does again.
        """

        async def tell_worker(is_silent: bool) -> None:
            with suppress(RbeeError):  # a worker that cannot be told is lost, which its stream says too
                await self.tell_reader(task.request_id or "", is_silent=is_silent)

        def take(event: Event) -> bool:
            if not taker.has_room:
                return False
            try:
                taker.take(Generated(*event))
            except RbeeError:
                return False  # the one who waits for the event raises it
            return True

        with client.watched(self._limits.silent, tell_worker):
            try:
                async with self.inference(task.generation(), keep=keep, salt=salt) as events:
                    events.pass_on(take)
                    async for event in events:
                        await taker.wait_for_room()
                        taker.take(Generated(*event))
            except UnknownFieldError as exc:
                raise self._older(exc) from exc
            except sse_client.StreamLostError as exc:
                raise WorkerFailedError(f"the worker's stream ended early: {exc}") from exc
            except ConnectionTimeoutError as exc:
                raise WorkerFailedError("the worker was lost before it answered") from exc

    def _older(self, refusal: UnknownFieldError) -> VersionMismatchError:
        """Return the error for a worker that does not know all that the queen, which has checked the request, knows."""
        return VersionMismatchError(
            f"the worker {self.worker_id} on {self._node} is of an earlier version of rbee, and cannot do what was "
            f"asked ({refusal.message})",
            hint=f"`rbee workers shutdown --id {self.worker_id}` ends it: the next request starts one of the version "
            "that is installed there",
            node=self._node,
        )
