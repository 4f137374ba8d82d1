"""Passes a worker's answer through the queen, for callers that cannot reach the worker."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rbee.adapters.http.direct import event_answer
from rbee.adapters.http.sse_client import StreamLostError
from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient, inference_headers
from rbee.errors import ConnectionTimeoutError, RbeeError, VersionMismatchError, WorkerFailedError
from rbee.narrower_errors import UnknownFieldError
from rbee.queen.requests.events import Generated
from rbee.wire.worker import INFERENCE

if TYPE_CHECKING:
    from rbee.adapters.config import Timeouts
    from rbee.adapters.http.connection import ClientConnection
    from rbee.adapters.http.event_parser import Event
    from rbee.adapters.http.kept_connections import KeptConnections
    from rbee.queen.requests.events import Taker
    from rbee.wire.progress import Report
    from rbee.wire.queen import TaskRequest


class WorkerRelay:
    """A worker of some node at the URL at which the queen reaches it, asked over `connections` that are kept."""

    def __init__(
        self, worker_id: str, node: str, url: str, key: str, limits: Timeouts, connections: KeptConnections
    ) -> None:
        self.worker_id = worker_id
        self._node = node
        self._url = url
        self._key = key
        self._limits = limits
        self._connections = connections

    def _client(self) -> WorkerClient:
        """Return what asks the worker for anything but an answer: it costs a tenth of a request."""
        return WorkerClient(self._url, self._key, timeout=self._limits.call, delays=self._limits.call_delays)

    async def wait_ready(self, report: Report) -> None:
        """Return once the worker has loaded its model; reports how that goes on."""
        try:
            async with self._client() as worker:
                # The hive counts too, from an earlier moment on, knows the layers, and needs a moment to end it.
                await wait_ready(worker, report, self._limits, grace=self._limits.unload)
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
                async with self._client() as worker:
                    await worker.tell_reader(task.request_id or "", is_silent=is_silent)

        def take(event: Event) -> bool:
            if not taker.has_room:
                return False
            taker.take(Generated(*event))
            return True

        request = task.generation()
        headers = {"Authorization": f"Bearer {self._key}", **inference_headers(request, keep, salt)}
        try:
            await event_answer.follow(
                self._connections,
                self._url,
                INFERENCE,
                headers,
                request,
                take,
                taker.wait_for_room,
                patience=self._limits.call,
                meanwhile=client.watched(self._limits.silent, tell_worker),
            )
        except UnknownFieldError as exc:
            raise self._older(exc) from exc
        except StreamLostError as exc:
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
