"""Owns the tasks of all nodes, which come and go while the queen runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from rbee.concurrency.contained import contained, keep_running
from rbee.errors import NodeNotFoundError, UnloadFailedError
from rbee.queen.hives.link import LeftRunningError
from rbee.queen.hives.remote.hive import RemoteHive
from rbee.queen.nodes import own_files
from rbee.queen.nodes.feed import SwarmFeed
from rbee.queen.nodes.node import Node
from rbee.queen.registry.record import NodeRecord
from rbee.queen.registry.table import not_found, not_there_to_remove
from rbee.queen.scheduling.shared_line import SharedLine
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.hive import HiveClient
    from rbee.errors import RbeeError
    from rbee.queen.hives.link import HiveLink
    from rbee.queen.registry.identity import HiveIdentities
    from rbee.queen.registry.table import Registry
    from rbee.queen.scheduling.known_prompts import KnownPrompts
    from rbee.wire.model_copy import Source
    from rbee.wire.progress import Report
    from rbee.wire.registry import BeehiveRow


class _Entry(NamedTuple):
    """A node with its way to its hive, and what cancels the tasks of both."""

    node: Node
    link: HiveLink
    running: trio.CancelScope


class HivesEnded(NamedTuple):
    """What did not end as it should, and the nodes whose hive may run still: the next queen tries again."""

    failures: list[UnloadFailedError]
    left_running: list[str]


class Nodes:
    """The nodes of the swarm: `local`, and those of the registry."""

    def __init__(
        self, settings: Settings, token: str, registry: Registry, identities: HiveIdentities, local: HiveLink
    ) -> None:
        self._settings = settings
        self._token = token
        self._registry = registry
        self._identities = identities
        self._entries: dict[str, _Entry] = {}
        self._remote: dict[str, RemoteHive] = {}
        self._local = local
        self._own_files = own_files.OwnFiles(settings.timeouts.download_delays)
        self._line = SharedLine()
        self.feed = SwarmFeed()

    @property
    def known_prompts(self) -> KnownPrompts:
        """Which workers have read which beginnings of prompts."""
        return self._line.known

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the nodes until cancelled; started once each of them takes orders."""
        async with trio.open_nursery() as self._nursery:
            rows = await self._registry.rows()
            # All at once: before any of them looks for its hive, it is known which hives are those of others.
            self._start(LOCAL_NODE, self._local)
            for row in rows:
                if row.node_name != LOCAL_NODE:  # as the table never has it, unless it was changed by hand
                    self.add(row)
            task_status.started()
            await trio.sleep_forever()

    def all(self) -> list[Node]:
        """Return the nodes, `local` first, then by name."""
        names = sorted(self._entries, key=lambda name: (name != LOCAL_NODE, name))
        return [self._entries[name].node for name in names]

    def get(self, name: str) -> Node:
        """Return a node. Raises NodeNotFoundError."""
        if (entry := self._entries.get(name)) is None:
            raise not_found(name, self._entries)
        return entry.node

    def remote(self, name: str, *, to_remove: bool = False) -> RemoteHive:
        """Return the way to a registered node. Raises NodeNotFoundError, for `local` too."""
        if name == LOCAL_NODE:
            raise NodeNotFoundError(
                f"{LOCAL_NODE} is the queen's own host: it is always there, and not in the registry",
                hint="`rbee uninstall` removes rbee from it" if to_remove else "`rbee install` installs rbee on it",
                node=name,
            )
        if (hive := self._remote.get(name)) is None:
            raise not_there_to_remove(name, self._remote) if to_remove else not_found(name, self._entries)
        return hive

    def add(self, row: BeehiveRow) -> None:
        """Take in a node of the registry."""
        record = NodeRecord(row, self._registry, self._identities)
        hive = self._remote[record.name] = RemoteHive(record, self._settings, self._token, self._identities)
        self._start(record.name, hive)

    def _start(self, name: str, link: HiveLink) -> None:
        on_event = partial(self.feed.on_hive_event, name)
        find = partial(self._find_sources, name)
        limit = self._settings.queen.max_waiting
        node = Node(name, link, max_waiting=limit, on_event=on_event, find_sources=find, line=self._line)
        self.feed.add_node(name, node.mirror)
        entry = self._entries[name] = _Entry(node, link, trio.CancelScope())
        self._nursery.start_soon(self._run, entry)

    async def _find_sources(self, name: str, hive: HiveClient, reference: str, report: Report) -> list[Source]:
        """Ask the other nodes, all at once and each for a bounded time, what they have of a model's repository.

        None of them is asked where `hive`, that of the node `name`, has the model already. A user's own file that is on
        the queen's host is brought from there.
        """
        target, others = self.get(name), [node for node in self.all() if node.name != name]
        if not (reference.startswith("hf:") or own_files.is_own_file(reference)) or not others:
            return []
        is_ours = own_files.is_own_file(reference) and name != LOCAL_NODE
        if is_ours and await self._own_files.bring(reference, name, hive, report):
            return []
        if (await hive.offers(reference)).is_here:
            return []
        found: dict[str, Source] = {}

        async def ask(node: Node) -> None:
            if (source := await node.source(reference, target)) is not None:
                found[node.name] = source

        async with trio.open_nursery() as nursery:
            for node in others:
                nursery.start_soon(ask, node)
        return [found[node.name] for node in others if node.name in found]

    async def _run(self, entry: _Entry) -> None:
        name = entry.node.name
        with contained(f"node {name}"), entry.running:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(entry.node.run)
                nursery.start_soon(keep_running, f"the way to {name}", entry.link.run)

    async def drop(self, name: str) -> UnloadFailedError | None:
        """Forget a node, and end its hive if a queen started it; requests that wait there are answered.

        Returns why the hive could not be ended.
        """
        self.remote(name)  # raises
        entry, hive = self._entries.pop(name), self._remote.pop(name)
        entry.node.stop_placing()
        force = trio.Event()
        force.set()
        is_gone = False
        try:
            failure = await entry.link.end(force)
            is_gone = True
        finally:
            entry.running.cancel()
            self._identities.leave(name)
            self.feed.remove_node(name)
            if not is_gone:
                self.add(hive.record.row)  # the disk is full, maybe: the table has it still
        return failure

    async def end(self, force: trio.Event) -> HivesEnded:
        """Place nothing more, and end every hive that a queen started, all at once: none waits for another."""
        ended = HivesEnded([], [])

        async def end(name: str, link: HiveLink) -> None:
            failure: UnloadFailedError | None = None

            def fail(error: RbeeError) -> None:
                nonlocal failure
                failure = UnloadFailedError(f"the hive of {name} could not be ended: {error.message}", hint=error.hint)

            with contained(f"ending the hive of {name}", fail):
                failure = await link.end(force)
            if isinstance(failure, LeftRunningError):
                ended.left_running.append(name)
            elif failure is not None:
                ended.failures.append(failure)

        for entry in self._entries.values():
            entry.node.stop_placing()
        async with trio.open_nursery() as nursery:
            for name, entry in self._entries.items():
                nursery.start_soon(end, name, entry.link)
        return ended
