"""What the keeper asks of a queen about the models of the swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from rbee.adapters.http import sse_client
from rbee.clients.progress import progress_of
from rbee.errors import InternalError
from rbee.wire import models as wire

if TYPE_CHECKING:
    from rbee.clients.queen import QueenClient
    from rbee.wire.common import Request
    from rbee.wire.progress import Report


T = TypeVar("T")


async def all_models(queen: QueenClient, node: str | None, report: Report) -> wire.SwarmModels:
    """List the catalogues: of one node, whose hive is started if need be, or of all that answer."""
    return await _asked(queen, "GET", wire.SWARM_LIST, wire.SwarmModels, report, params={"node": node})


async def show(queen: QueenClient, reference: str, node: str | None, report: Report) -> wire.ModelDetails:
    """Describe a model that is on a node. Raises ModelNotFoundError."""
    params = {"model_ref": reference, "node": node}
    return await _asked(queen, "GET", wire.SWARM_SHOW, wire.ModelDetails, report, params=params)


async def pull(queen: QueenClient, request: wire.NodeModel, report: Report) -> wire.ModelRow:
    """Have a model fetched; who is cancelled here no longer keeps the download going."""
    return await _asked(queen, "POST", wire.SWARM_PULL, wire.ModelRow, report, body=request)


async def remove(queen: QueenClient, request: wire.NodeModelId, report: Report) -> wire.Removed:
    """Remove a model from a node. Raises ModelNotFoundError or ModelInUseError."""
    return await _asked(queen, "POST", wire.SWARM_REMOVE, wire.Removed, report, body=request)


async def _asked(
    queen: QueenClient,
    method: str,
    path: str,
    kind: type[T],
    report: Report,
    *,
    params: dict[str, str | None] | None = None,
    body: Request | None = None,
) -> T:
    given = {name: value for name, value in (params or {}).items() if value is not None}
    try:
        async with queen.stream(method, f"{path}?{urlencode(given)}" if given else path, body) as events:
            async for event in events:
                if (message := progress_of(event)) is None:
                    return sse_client.decode_event(event.data, kind)
                report(message)
    except sse_client.StreamLostError as exc:
        raise InternalError("the queen ended before she had answered") from exc
    raise InternalError("the queen ended without a result")
