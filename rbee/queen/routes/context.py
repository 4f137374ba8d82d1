"""What the queen's routes share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rbee.adapters.http import own_address
from rbee.adapters.http.streams import Streams
from rbee.errors import InvalidApiKeyError
from rbee.queen.nodes.known_models import KnownModels
from rbee.queen.registry.aliases import ModelAliases
from rbee.queen.requests.history import RequestHistory
from rbee.queen.requests.log import RequestLog
from rbee.queen.routes import request_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import trio
    from quart import Response

    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping
    from rbee.adapters.http import sse_server
    from rbee.adapters.http.kept_connections import KeptConnections
    from rbee.queen.access.api_keys import ApiKeys
    from rbee.queen.access.identity import CallerIdentity
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry
    from rbee.queen.requests.tracker import RequestTracker, TrackedRequest


@dataclass(frozen=True)
class QueenContext(Streams):
    """One queen, as its routes see it; `queen_id` is that of its state folder."""

    settings: Settings
    token: str
    registry: Registry
    nodes: Nodes
    tracker: RequestTracker
    connections: KeptConnections
    nursery: trio.Nursery
    stopping: Stopping
    keys: ApiKeys
    queen_id: str = ""
    requests: RequestLog = field(default_factory=RequestLog)
    history: RequestHistory = field(default_factory=RequestHistory)
    own_names: set[str] = field(default_factory=own_address.names)
    """The names of this machine in small letters, to which more may come."""

    @cached_property
    def models(self) -> KnownModels:
        """What the swarm has, by name."""
        return KnownModels(self.nodes, self.nursery)

    @cached_property
    def aliases(self) -> ModelAliases:
        """Further names of models."""
        aliases = ModelAliases(self.settings.models, self.settings.state_dir)
        aliases.on_change = self.models.found.clear
        return aliases

    @contextmanager
    def track(self, request_id: str, identity: CallerIdentity) -> Iterator[TrackedRequest]:
        """Run a caller's request in the block, which ends with an error when it is cancelled, or its key is revoked.

        See `RequestTracker.track`. Raises InvalidApiKeyError where the key is not good any more.
        """
        if not self.keys.is_good(identity):
            raise InvalidApiKeyError("the key was revoked, or has expired, while the request came", key=identity.name)
        with self.tracker.track(request_id, identity.caller) as tracked:
            yield tracked

    def stream(
        self,
        produce: Callable[[sse_server.Send], Awaitable[object]],
        *,
        heartbeat: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Answer with a stream, whose end is that of the request in the log; see Streams."""
        record = request_log.current()
        if not record.is_stream:
            produce = request_log.watched(produce, record, self.requests.write)
        return super().stream(produce, heartbeat=heartbeat, headers=headers)
