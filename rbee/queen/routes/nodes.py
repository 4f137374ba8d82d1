"""The queen's HTTP interface to its registry of nodes."""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from rbee.adapters.http.app import answer, body
from rbee.adapters.ssh import dial
from rbee.adapters.ssh.target import Target
from rbee.errors import NodeExistsError
from rbee.queen.hives.remote.probe import probe
from rbee.wire import registry as wire
from rbee.wire.common import Narration
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.config import Settings
    from rbee.queen.routes.context import Context
    from rbee.wire.progress import Report


def add(app: QuartTrio, context: Context) -> None:
    """Add the routes."""
    nodes, registry, settings = context.nodes, context.registry, context.settings
    changing = trio.Lock()

    async def end_hive(name: str, report: Report) -> None:
        """Forget the tasks of a node, and end its hive if a queen started it."""
        link = nodes.remote(name)
        if was_owned := link.record.is_owned:
            human = f"Ending the hive on {name}; its running requests may finish first"
            report(Narration(actor="queen-rbee", action="stop_hive", target=name, human=human))
        await nodes.drop(name)
        if was_owned and link.record.is_owned:
            human = f"The hive on {name} could not be ended, and may run still: the queen's log says why"
            report(Narration(actor="queen-rbee", action="stop_hive", target=name, human=human))

    @app.post(wire.ADD)
    async def add_node() -> Response:
        asked = await body(wire.Beehive)
        if asked.node_name == LOCAL_NODE:
            raise NodeExistsError(
                f"node {LOCAL_NODE} is the queen's own host; it needs no registration", node=LOCAL_NODE
            )
        await registry.check_free(asked.node_name)

        async def work(report: Report) -> wire.Success:
            row = await _describe(asked, settings, report)
            async with _whole(changing):
                await registry.check_single(row)
                await registry.add(row)
                nodes.add(row)
            return wire.Success(message=f"node {row.node_name} was saved", node_name=row.node_name)

        return await context.respond(work, "success")

    @app.post(wire.UPDATE)
    async def update_node() -> Response:
        asked = await body(wire.Beehive)
        nodes.remote(asked.node_name)

        async def work(report: Report) -> wire.Success:
            known = next((row for row in await registry.rows() if row.node_name == asked.node_name), None)
            row = await _describe(asked, settings, report, known)
            async with _whole(changing):
                await registry.check_single(row)
                await end_hive(row.node_name, report)
                await registry.replace(row)
                nodes.add(row)
            return wire.Success(message=f"node {row.node_name} was changed", node_name=row.node_name)

        return await context.respond(work, "success")

    @app.get(wire.LIST)
    async def list_nodes() -> Response:
        return answer(wire.BeehiveList(nodes=await registry.rows()))

    @app.post(wire.REMOVE)
    async def remove_node() -> Response:
        name = (await body(wire.NodeName)).node_name
        nodes.remote(name)

        async def work(report: Report) -> wire.Success:
            async with _whole(changing):
                await end_hive(name, report)
                await registry.remove(name)
            return wire.Success(message=f"node {name} was removed", node_name=name)

        return await context.respond(work, "success")

    @app.post(wire.INSTALL)
    async def install() -> Response:
        asked = await body(wire.InstallRequest)
        link = nodes.remote(asked.node_name)
        return context.stream_progress(partial(link.install, asked), "success")


@asynccontextmanager
async def _whole(changing: trio.Lock) -> AsyncIterator[None]:
    """Make a change that concerns table and tasks whole, also when who asked for it goes away."""
    async with changing:
        with trio.CancelScope(shield=True):
            yield


async def _describe(
    asked: wire.Beehive, settings: Settings, report: Report, known: wire.BeehiveRow | None = None
) -> wire.BeehiveRow:
    """Connect to the machine and find out what the user has not said. Raises SshFailedError; stores nothing.

    Where `known` is the same machine, its key must be the one that is pinned.
    """

    def say(action: str, human: str) -> None:
        report(Narration(actor="queen-rbee", action=action, target=asked.node_name, human=human))

    key_path = None if asked.ssh_key_path is None else os.path.expanduser(asked.ssh_key_path)  # noqa: ASYNC240, PTH111
    is_same = known is not None and (known.ssh_host, known.ssh_port) == (asked.ssh_host, asked.ssh_port)
    pinned = known.host_key if known is not None and is_same else None
    target = Target(asked.ssh_host, asked.ssh_port, asked.ssh_user, key_path, pinned)
    say("ssh_test", f"Testing SSH connection to {asked.ssh_host}")
    async with dial.connect(
        target,
        own_known_hosts=settings.state_dir / "known_hosts",
        accept=asked.accept_host_key,
        seconds=settings.timeouts.ssh_connect,
    ) as connection:
        machine = await probe(connection)
    python = machine.python()
    runs = f"Python {'.'.join(map(str, python.version))}" if python else "no Python that fits"
    devices = ", ".join(f"{count} × {name}" for name, count in machine.devices.items())
    say(
        "ssh_ready",
        f"SSH connection to {asked.ssh_host} works: {machine.system} {machine.architecture}, {runs}, {devices}",
    )
    return wire.BeehiveRow(
        node_name=asked.node_name,
        ssh_host=asked.ssh_host,
        ssh_port=asked.ssh_port,
        ssh_user=asked.ssh_user,
        ssh_key_path=key_path,
        git_repo_url=asked.git_repo_url,
        git_branch=asked.git_branch,
        install_path=machine.absolute(asked.install_path),
        tunnel=asked.tunnel,
        host_key=connection.host_key,
        last_connected_unix=time.time(),
        last_error=None,
        status="reachable",
        backends=machine.backends if asked.backends is None else list(asked.backends),
        devices=machine.devices if asked.devices is None else dict(asked.devices),
        spawned_by_queen=False,
    )
