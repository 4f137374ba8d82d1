"""One registered node: its row in memory, with each change written through to the table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rbee.queen.registry.table import Registry
    from rbee.wire.registry import BeehiveRow


class NodeRecord:
    """The only owner of a node's row while the queen runs.

    A change holds in memory at once, and for the next queen when the call returns. The calls raise NodeNotFoundError
    where the node was removed meanwhile, and StorageError.
    """

    def __init__(self, row: BeehiveRow, registry: Registry) -> None:
        self._row = row
        self._registry = registry

    @property
    def row(self) -> BeehiveRow:
        """The row as it is now; a change makes a new one."""
        return self._row

    @property
    def name(self) -> str:
        """The node's name."""
        return self._row.node_name

    @property
    def is_owned(self) -> bool:
        """Whether a queen started the hive that runs there, so that it is ours to end."""
        return self._row.spawned_by_queen

    @property
    def is_tunnelled(self) -> bool:
        """Whether HTTP goes through SSH: what the user wants, or what was found to work."""
        return self._row.tunnel == "always" or (self._row.tunnel == "auto" and self._row.is_tunnelled)

    async def connected(self) -> None:
        """Note that the node was reached by SSH just now."""
        await self._change(last_connected_unix=time.time(), status="reachable", last_error=None)

    async def failed(self, reason: str) -> None:
        """Note why the node was not reached by SSH."""
        await self._change(status="unreachable", last_error=reason)

    async def owned(self, *, owned: bool) -> None:
        """Note whether the hive that runs there is ours to end."""
        await self._change(spawned_by_queen=owned)

    async def located(self, hive_url: str, hive_id: str | None) -> None:
        """Note where the node's hive listens, as the node itself knows it, and which hive it is."""
        await self._change(hive_url=hive_url, hive_id=hive_id)

    async def tunnelled(self, *, tunnelled: bool) -> None:
        """Note whether only SSH leads to the hive."""
        await self._change(is_tunnelled=tunnelled)

    async def identified(self, hive_id: str) -> None:
        """Note which hive is the node's."""
        await self._change(hive_id=hive_id)

    async def _change(self, **values: Any) -> None:
        self._row = msgspec.structs.replace(self._row, **values)
        await self._registry.change(self.name, **values)
