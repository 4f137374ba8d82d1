"""Registers, changes and removes nodes: in the table, among the nodes that the queen runs, and on the machine."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import RbeeError
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote.describe import describe
from rbee.wire.registry import Beehive, BeehiveRow, Success

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry
    from rbee.wire.progress import Report


_FOUND: Final = ("host_key", "ssh_settings")
"""What describes a node beside what a user says of it."""


@dataclass(frozen=True)
class Registration:
    """Changes table and nodes together; errors are those of Registry, and SshFailedError."""

    nodes: Nodes
    registry: Registry
    settings: Settings
    # A lock and no task of its own: a change runs for one caller, who waits for its end. Beside it another one would
    # find the table changed and the nodes not yet.
    _changing: trio.Lock = field(default_factory=trio.Lock)

    async def add(self, asked: Beehive, report: Report) -> Success:
        """Connect to the machine, and take it in."""
        row = await describe(asked, self.settings, report)
        async with self._whole_change():
            await self.registry.check_folder_free(row)
            await self.registry.add(row)
            self.nodes.add(row)
        return Success(message=f"node {row.node_name} was saved", node_name=row.node_name)

    async def update(self, asked: Beehive, report: Report) -> Success:
        """Connect to the machine, and replace the node of that name; ends its hive if a queen started it.

        One that could not be ended stays ours where the node stays where it is: the next queen tries again.
        """
        known = next((row for row in await self.registry.rows() if row.node_name == asked.node_name), None)
        row = await describe(asked, self.settings, report, known)
        async with self._whole_change():
            await self.registry.check_folder_free(row)
            if known is not None and _is_same(known, row) and await self._has_its_hive(row.node_name):
                await self.nodes.remote(row.node_name).record.connected()
                return Success(
                    message=f"node {row.node_name} is as it was: nothing has changed", node_name=row.node_name
                )
            has_ended = await self._drop(row.node_name, report)
            row.spawned_by_queen = not has_ended and known is not None and _is_same_place(known, row)
            await self.registry.replace(row)
            self.nodes.add(row)
        return Success(message=f"node {row.node_name} was changed", node_name=row.node_name)

    async def _has_its_hive(self, name: str) -> bool:
        """Whether no other hive is in the place of the node's own, which goes on then."""
        try:
            await self.nodes.remote(name).find()
        except RbeeError:
            return False
        return True

    async def remove(self, name: str, report: Report) -> Success:
        """Forget the node; ends its hive if a queen started it."""
        async with self._whole_change():
            await self._drop(name, report)
            await self.registry.remove(name)
        return Success(message=f"node {name} was removed", node_name=name)

    @asynccontextmanager
    async def _whole_change(self) -> AsyncIterator[None]:
        """Make one change at a time, and all of it, also when its caller goes away."""
        async with self._changing:
            with trio.CancelScope(shield=True):
                yield

    async def _drop(self, name: str, report: Report) -> bool:
        """Have the queen run the node no longer; returns whether its hive has ended, if it was ours."""
        if self.nodes.remote(name).record.is_owned:
            human = f"Ending the hive on {name}; its running requests may finish first"
            narrate(report, name, "stop_hive", human)
        has_ended = await self.nodes.drop(name) is None
        if not has_ended:
            human = f"The hive on {name} could not be ended, and may run still: the queen's log says why"
            narrate(report, name, "stop_hive", human)
        return has_ended


def _is_same(one: BeehiveRow, other: BeehiveRow) -> bool:
    """Whether both rows say the same of a node, whatever has become of it since."""
    said = (*(name for name in Beehive.__struct_fields__ if name in BeehiveRow.__struct_fields__), *_FOUND)
    return all(getattr(one, name) == getattr(other, name) for name in said)


def _is_same_place(one: BeehiveRow, other: BeehiveRow) -> bool:
    """Whether both rows mean the same installation on the same machine."""
    return (one.ssh_host, one.ssh_port, one.install_path) == (other.ssh_host, other.ssh_port, other.install_path)
