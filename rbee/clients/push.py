"""Sends the pieces of a model file to a hive, or to the queen for the hive of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.clients.progress import result_of
from rbee.errors import DownloadFailedError, InternalError
from rbee.wire import model_push as wire

if TYPE_CHECKING:
    from rbee.wire.progress import Report

PIECE_SECONDS: Final = 300.0
"""For a piece to be on the node: 8 MB over a line of 30 kB a second. A line that is dead is noticed sooner."""


class HiveReceiver:
    """A hive, as the receiver of a model."""

    def __init__(self, client: http_client.Client) -> None:
        self._client = client

    async def announce(self, request: wire.PushRequest, report: Report) -> wire.PushState:
        """Announce a model; returns what is missing of it."""
        return await self._announce(wire.PUSH, request, report)

    async def _announce(self, path: str, request: wire.PushRequest, report: Report) -> wire.PushState:
        hint = "the next push goes on where this one ended"
        lost = DownloadFailedError("the connection was lost while the model was sent", hint=hint)
        stream = sse_client.events(self._client, "POST", path, body=request)
        state = await result_of(stream, wire.PushState, report, lost)
        if not state.is_of(request):
            raise InternalError("the answer is about files that were not announced")
        return state

    async def send(self, sha256: str, offset: int, data: bytes) -> wire.Received:
        """Send a piece once. Raises ConnectionTimeoutError, or the error that the daemon sent."""
        return await self._send(f"{wire.PIECE}{sha256}", data, offset=offset)

    async def _send(self, path: str, data: bytes, **query: object) -> wire.Received:
        address = f"{path}?{urlencode(query)}"
        return await http_client.put(self._client, address, data, wire.Received, seconds=PIECE_SECONDS)


class QueenReceiver(HiveReceiver):
    """A queen, which passes everything on to the hive of `node`."""

    def __init__(self, client: http_client.Client, node: str) -> None:
        super().__init__(client)
        self._node = node

    async def announce(self, request: wire.PushRequest, report: Report) -> wire.PushState:
        """Announce a model; returns what is missing of it."""
        wanted = wire.NodePush(**msgspec.structs.asdict(request), node=self._node)
        return await self._announce(wire.SWARM_PUSH, wanted, report)

    async def send(self, sha256: str, offset: int, data: bytes) -> wire.Received:
        """Send a piece once. Raises ConnectionTimeoutError, or the error that the queen or the hive sent."""
        return await self._send(f"{wire.SWARM_PIECE}{sha256}", data, offset=offset, node=self._node)
