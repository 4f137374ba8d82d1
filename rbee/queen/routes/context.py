"""What the queen's routes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee.adapters.http.streams import Streams

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping
    from rbee.adapters.http.kept_connections import KeptConnections
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry
    from rbee.queen.requests.tracker import RequestTracker


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
    queen_id: str = ""
