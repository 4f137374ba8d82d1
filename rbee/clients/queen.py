"""Talks to a queen."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlencode

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.clients.base import Connected
from rbee.clients.progress import result_of
from rbee.clients.push import QueenReceiver
from rbee.errors import InternalError, RbeeError, RouteNotFoundError
from rbee.wire import models, queen, registry
from rbee.wire.administration import aliases as alias_wire
from rbee.wire.administration import keys as key_wire
from rbee.wire.administration import requests as request_wire
from rbee.wire.common import KEEP_HEADER, SESSION_HEADER
from rbee.wire.error_body import from_body
from rbee.wire.events import EVENTS
from rbee.wire.logs import QUEEN_LOGS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.http.proof import Challenge
    from rbee.wire.common import Request
    from rbee.wire.logs import NodeLogQuery
    from rbee.wire.progress import Report

T = TypeVar("T")


class QueenClient(Connected):
    """A queen at a URL; `async with` closes its connections. Health needs no token."""

    async def health(self, challenge: Challenge | None = None) -> queen.QueenHealth:
        """Ask once, and for a proof that meets the challenge; the errors are those of `http.call`."""
        headers = None if challenge is None else challenge.headers
        return await http_client.call(self._http, "GET", queen.HEALTH, queen.QueenHealth, headers=headers)

    def place(
        self,
        request: queen.TaskRequest,
        *,
        relay_if_needed: bool = False,
        unreached: Iterable[str] = (),
        keep: float | None = None,
        session: str | None = None,
    ) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of `narration`, `progress` and `worker` events.

        Where the answer is relayed, the events of the worker's own stream follow; it is for a worker on one of the
        `unreached` hosts. The worker stays for `keep` seconds without a request, if that says so. Slots go round the
        sessions that callers name.
        """
        prefer = queen.RELAY_IF_NEEDED
        if hosts := " ".join(unreached):
            prefer += f'; {queen.UNREACHED}="{hosts}"'
        headers = {queen.PREFER: prefer} if relay_if_needed else {}
        if keep is not None:
            headers[KEEP_HEADER] = str(keep)
        if session is not None:
            headers[SESSION_HEADER] = session
        return sse_client.events(self._http, "POST", queen.TASKS, body=request, headers=headers)

    async def cancel(self, request_id: str) -> None:
        """Give a request up, whether or not it is placed yet."""
        await http_client.call(self._http, "DELETE", queen.TASK.format(request_id=request_id), bytes)

    async def why_failed(self, request_id: str) -> RbeeError | None:
        """Return the error that says why the worker of a request ended; None where it has not, or nobody knows."""
        path = queen.TASK_FAILURE.format(request_id=request_id)
        failure = await self._get(path, queen.TaskFailure)
        return from_body({"error": failure.error})

    async def workers(self, node: str | None = None) -> queen.SwarmWorkers:
        """List the workers of all nodes, or of one, and the last ones that ended without being asked to."""
        params = {} if node is None else {"node": node}
        return await self._get(queen.WORKERS_LIST, queen.SwarmWorkers, **params)

    async def end_worker(self, worker_id: str) -> queen.WorkerEnding:
        """Have a worker end; returns once it has accepted that. Raises WorkerNotFoundError."""
        body = queen.WorkerShutdown(worker_id=worker_id)
        return await self._result("POST", queen.WORKERS_SHUTDOWN, queen.WorkerEnding, lambda _: None, body)

    async def status(self, node: str | None = None) -> queen.SwarmStatus:
        """Ask how all nodes are, or one, and what runs there."""
        params = {} if node is None else {"node": node}
        return await self._get(queen.STATUS, queen.SwarmStatus, **params)

    async def keys(self) -> list[key_wire.ApiKey]:
        """List the API keys, by name."""
        return (await self._get(key_wire.KEYS, key_wire.KeyList)).keys

    async def create_key(self, request: key_wire.KeyRequest) -> key_wire.NewKey:
        """Make an API key, which is told this once. Raises InvalidRequestError for a name that is taken."""
        return await http_client.call(self._http, "POST", key_wire.KEYS, key_wire.NewKey, body=request)

    async def revoke_key(self, name: str) -> key_wire.KeyRevoked:
        """Make an API key good for nothing, at once. Raises NotFoundError."""
        path = key_wire.KEY.format(name=quote(name, safe=""))
        return await http_client.call(self._http, "DELETE", path, key_wire.KeyRevoked)

    async def aliases(self) -> list[alias_wire.ModelAlias]:
        """List the aliases of models, by name."""
        return (await self._get(alias_wire.ALIASES, alias_wire.AliasList)).aliases

    async def known_aliases(self) -> list[alias_wire.ModelAlias]:
        """List them as `aliases` does; a queen of an earlier version has none."""
        try:
            return await self.aliases()
        except RouteNotFoundError:
            return []

    async def make_alias(self, request: alias_wire.AliasRequest) -> alias_wire.ModelAlias:
        """Have a name stand for a model. Raises InvalidRequestError, ModelNotFoundError or NodeNotFoundError."""
        return await http_client.call(self._http, "POST", alias_wire.ALIASES, alias_wire.ModelAlias, body=request)

    async def remove_alias(self, name: str) -> str:
        """Forget an alias; returns its name. Raises NotFoundError, or InvalidRequestError for one of the settings."""
        asked = alias_wire.AliasName(name=name)
        return (await http_client.call(self._http, "POST", alias_wire.REMOVE, alias_wire.AliasName, body=asked)).name

    async def requests(self, lines: int) -> list[request_wire.RequestInfo]:
        """List the last requests for text, the oldest first, and those that run."""
        return (await self._get(request_wire.REQUESTS, request_wire.RequestList, lines=str(lines))).requests

    def requests_that_end(self, lines: int) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of requests: the last ones, then each that ends; each event is a RequestInfo."""
        return sse_client.events(self._http, "GET", f"{request_wire.REQUESTS}?lines={lines}&follow=true")

    async def story(self, request_id: str) -> request_wire.RequestStory:
        """Return what happened to a request, of whose id the beginning is enough. Raises NotFoundError."""
        return await self._get(
            request_wire.STORY.format(request_id=quote(request_id, safe="")), request_wire.RequestStory
        )

    def events(self) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of what happens in the swarm: the event `state`, then each change."""
        return sse_client.events(self._http, "GET", EVENTS)

    def logs(self, query: NodeLogQuery) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of a node's logs; each event is a LogLine. Raises NodeNotFoundError."""
        asked = urlencode({"node": query.node, "lines": query.lines, "follow": str(query.follow).lower()})
        return sse_client.events(self._http, "GET", f"{QUEEN_LOGS}?{asked}")

    async def nodes(self) -> list[registry.BeehiveRow]:
        """List the registered nodes, by name."""
        found = await self._get(registry.LIST, registry.BeehiveList)
        return found.nodes

    async def add_node(self, node: registry.Beehive, report: Report) -> registry.Success:
        """Register a node. Raises SshFailedError or NodeExistsError."""
        return await self._result("POST", registry.ADD, registry.Success, report, node)

    async def update_node(self, node: registry.Beehive, report: Report) -> registry.Success:
        """Change a registered node. Raises SshFailedError or NodeNotFoundError."""
        return await self._result("POST", registry.UPDATE, registry.Success, report, node)

    async def remove_node(self, name: str, report: Report) -> registry.Success:
        """Forget a node, whose hive may have to end first. Raises NodeNotFoundError."""
        return await self._result("POST", registry.REMOVE, registry.Success, report, registry.NodeName(node_name=name))

    async def install(self, request: registry.InstallRequest, report: Report) -> registry.Success:
        """Bring rbee to a node. Raises InstallFailedError, SshFailedError or NodeNotFoundError."""
        stream = sse_client.events(self._http, "POST", registry.INSTALL, body=request)
        lost = InternalError("the queen exited before the installation was complete")
        return await result_of(stream, registry.Success, report, lost)

    async def list_models(self, node: str | None, report: Report) -> models.SwarmModels:
        """List the catalogues: of one node, whose hive is started if need be, or of all that answer."""
        return await self._result("GET", _with_query(models.SWARM_LIST, node=node), models.SwarmModels, report)

    async def show_model(self, reference: str, node: str | None, report: Report) -> models.ModelDetails:
        """Describe a model that is on a node. Raises ModelNotFoundError."""
        path = _with_query(models.SWARM_SHOW, model_ref=reference, node=node)
        return await self._result("GET", path, models.ModelDetails, report)

    async def pull_model(self, request: models.NodeModel, report: Report) -> models.ModelRow:
        """Have a model downloaded; a caller that is cancelled no longer keeps the download going."""
        return await self._result("POST", models.SWARM_PULL, models.ModelRow, report, request)

    def receiver(self, node: str) -> QueenReceiver:
        """Return the queen as the receiver of a model that is sent to a node."""
        return QueenReceiver(self._http, node)

    async def remove_model(self, request: models.NodeModelId, report: Report) -> models.Removed:
        """Remove a model from a node. Raises ModelNotFoundError or ModelInUseError."""
        return await self._result("POST", models.SWARM_REMOVE, models.Removed, report, request)

    async def _result(self, method: str, path: str, kind: type[T], report: Report, body: Request | None = None) -> T:
        """Return the result that ends a stream of progress; the progress is reported as it comes."""
        stream = sse_client.events(self._http, method, path, body=body)
        return await result_of(stream, kind, report, InternalError("the queen exited before it answered"))


def _with_query(path: str, **params: str | None) -> str:
    given = {name: value for name, value in params.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
