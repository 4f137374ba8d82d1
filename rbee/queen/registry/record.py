"""One registered node: its row in memory, with each change written through to the table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from rbee.queen.registry.identity import Claim

if TYPE_CHECKING:
    from rbee.queen.registry.identity import HiveIdentities
    from rbee.queen.registry.table import Registry
    from rbee.wire.registry import BeehiveRow, Tunnel


class NodeRecord:
    """The only owner of a node's row while the queen runs.

    A change holds in memory at once, and for the next queen when the call returns. The calls raise NodeNotFoundError
    where the node was removed meanwhile, and StorageError.
    """

    def __init__(self, row: BeehiveRow, registry: Registry, identities: HiveIdentities) -> None:
        self.row = row
        """The row as it is now; a change makes a new one."""
        self.name = row.node_name
        self._registry = registry
        self._identities = identities
        self._has_named_hive = False
        identities.enter(row.node_name, self)

    @property
    def claim(self) -> Claim:
        """Which hive is the node's; proven once the node has named it to this queen."""
        return Claim(self.row.hive_id, self._has_named_hive)

    @property
    def is_owned(self) -> bool:
        """Whether a queen started the hive that runs there, so that it is ours to end."""
        return self.row.spawned_by_queen

    @property
    def is_tunnelled(self) -> bool:
        """Whether HTTP goes through SSH: what the user wants, or what was found to work."""
        return self.tunnel == "always" or (self.tunnel == "auto" and self.row.is_tunnelled)

    @property
    def tunnel(self) -> Tunnel:
        """What may be tried: where other machines lead there, another one may have the address on this network."""
        settings = self.row.ssh_settings
        is_proxied = settings is not None and settings.is_proxied
        return "always" if self.row.tunnel == "auto" and is_proxied else self.row.tunnel

    async def connected(self, **found: Any) -> None:
        """Note that SSH leads there, and what of the way has changed with ssh's settings."""
        changed = {name: value for name, value in found.items() if value != getattr(self.row, name)}
        await self.change(last_connected_unix=time.time(), status="reachable", last_error=None, **changed)

    async def failed(self, reason: str) -> None:
        await self.change(status="unreachable", last_error=reason)

    async def located(self, hive_url: str, hive_id: str | None) -> None:
        """Note where the node's hive listens, as the node itself knows it, and which hive it is."""
        is_new = hive_id is not None and not self._has_named_hive
        self._has_named_hive = hive_id is not None
        if is_new:
            self._identities.claim_changed()  # others may have guessed that it is theirs
        await self.change(hive_url=hive_url, hive_id=hive_id)

    async def change(self, **values: Any) -> None:
        """Note what has changed; the names are those of the row's fields."""
        before, self.row = self.row, msgspec.structs.replace(self.row, **values)
        if self.row.hive_id != before.hive_id:
            self._identities.claim_changed()
        await self._registry.change(self.name, **values)
