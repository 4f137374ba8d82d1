"""Starts the queen: from its command line to serving, and from a signal to the end of what it started."""

from __future__ import annotations

import argparse
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee import __version__
from rbee.adapters import arguments, config, settings_in_use, tokens
from rbee.adapters.arguments import HelpAction, Parser, duration, whole
from rbee.adapters.daemon import lifecycle
from rbee.adapters.daemon.announce import Announcer, Ready
from rbee.adapters.daemon.instance import InstanceLock
from rbee.adapters.daemon.systemd import Notifier
from rbee.adapters.http import own_address
from rbee.adapters.http import server as http_server
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.adapters.logs import json_log
from rbee.adapters.store.sqlite import Store
from rbee.concurrency.contained import contained, keep_running
from rbee.queen.access import key_table
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.hives.local import LocalHive
from rbee.queen.nodes.nodes import Nodes
from rbee.queen.registry.identity import HiveIdentities
from rbee.queen.registry.table import MIGRATIONS, Registry
from rbee.queen.requests import history as request_history
from rbee.queen.requests.history import RequestHistory
from rbee.queen.requests.tracker import RequestTracker
from rbee.queen.routes import app as routes
from rbee.queen.routes.context import QueenContext
from rbee.wire.addresses import is_loopback
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping

log = logging.getLogger(__name__)

OPEN: Final = "OPEN: everyone who reaches the queen's port may use models, without a key ([api] open)"
WRITING_SECONDS: Final = 2.0
"""For what keys were used for, and became of requests, to be written down when the queen ends."""
ROLE: Final = "queen-rbee"
HELP: Final = """\
Run the queen in the foreground. It decides which node and which worker serve a request.

Ctrl+C ends it and everything it started.
"""


def main(argv: list[str]) -> int:
    """Run the queen until it is told to end; returns the exit code."""
    parser = Parser(prog="rbee queen", description=HELP)
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", metavar="N", type=whole(0, 65535), help="port to listen on (default: 8080)")
    what = "keep each model loaded so long after its last request, on all nodes: 90s, 30m, 2h, 1d or forever"
    parser.add_argument("--keep", metavar="TIME", type=duration, help=what)
    parser.add_argument("--open", action="store_true", default=None, help="let everyone use models, without a key")
    # Absolute, because the hive reads it too, in another folder.
    parser.add_argument("--config", metavar="FILE", type=os.path.abspath, help="read settings from this file")
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.add_argument("--ephemeral", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action=HelpAction)
    options = arguments.read(parser, argv)
    announcer = Announcer(options.announce)
    notifier = Notifier(enabled=not options.announce)
    flags = {
        "queen": {"host": options.host, "port": options.port, "keep": options.keep},
        "api": {"open": options.open},
    }

    async def daemon(stopping: Stopping) -> None:
        settings = config.load(flags, file=options.config)
        with InstanceLock(settings.state_dir, "queen") as lock:
            await _serve(lock, settings, options, flags, announcer, notifier, stopping)

    return lifecycle.run(daemon, announcer, ephemeral=options.ephemeral)


async def _serve(
    lock: InstanceLock,
    settings: Settings,
    options: argparse.Namespace,
    flags: dict[str, dict[str, Any]],
    announcer: Announcer,
    notifier: Notifier,
    stopping: Stopping,
) -> None:
    level = logging.DEBUG if options.debug else logging.INFO
    json_log.to_file(ROLE, settings.logs_dir / "queen.log", settings.logs.max_bytes, level)
    listener = http_server.bind(
        settings.queen.host, settings.queen.port, setting="--port, `port` under [queen], or RBEE_QUEEN_PORT"
    )
    url = http_server.base_url(listener)
    # Only now: where another queen has the port, a token would be made that opens nothing.
    token = tokens.load_or_create(settings.token_file)
    store = await Store.open(settings.state_dir / "beehives.db", (*MIGRATIONS, key_table.TABLE))
    if store.damage is not None:
        human = (
            f"{store.damage}; `rbee setup add-node` makes machines known again, and `rbee keys create` makes new keys"
        )
        announcer.report(Narration(actor=ROLE, action="rebuild", target="beehives.db", human=human))
    # A file of its own: it is written with each request, and nobody backs it up.
    history = RequestHistory(partial(Store.open, settings.state_dir / "requests.db", (request_history.TABLE,)))
    keys = ApiKeys(key_table.KeyTable(store))
    await keys.load()
    registry = Registry(store)
    identities = HiveIdentities(token)
    hive = LocalHive(settings, token, options.config, identities, ephemeral=options.ephemeral)
    nodes = Nodes(settings, token, registry, identities, hive)
    async with trio.open_nursery() as nursery:
        tracker = RequestTracker(nodes.feed.task)
        connections = KeptConnections()
        nursery.start_soon(connections.run)
        context = QueenContext(
            settings, token, registry, nodes, tracker, connections, nursery, stopping, keys, lock.id, history=history
        )
        written = trio.Event()
        nursery.start_soon(_write_down, keys, history, written)
        if not is_loopback(settings.queen.host):
            nursery.start_soon(_find_full_name, context.own_names)
        nodes.feed.on_request_ended = context.requests.on_ended
        nodes.feed.on_worker_gone = context.requests.on_gone
        app = routes.build(context)
        server = http_server.Server(app, listener, stalled=settings.timeouts.stalled)
        await nursery.start(server.run)
        await nursery.start(nodes.run)
        in_use = settings_in_use.record(config.load(file=options.config), flags=flags)
        lock.publish(url, __version__, ephemeral=options.ephemeral, settings=in_use)
        log.info("the queen %s answers at %s", __version__, url)
        announcer.ready(Ready(url, os.getpid(), __version__))
        notifier.ready(f"The queen answers at {url}")
        announcer.tell(f"The queen answers at {url}; `rbee logs --follow` shows what it does, Ctrl+C ends it.")
        if settings.api.open:
            log.warning(OPEN)
            announcer.tell(OPEN)
        nursery.start_soon(keep_running, "the watchdog's messages", notifier.keep_alive)
        await stopping.asked.wait()
        log.info("shutting down")
        notifier.stopping("Ending what the queen has started", settings.timeouts.ending)
        announcer.tell("Ending what the queen has started; Ctrl+C again ends running requests at once.")
        ended = await nodes.end(stopping.forced)
        tracker.end()
        await server.stop()
        context.requests.close()
        keys.close()
        history.close()
        with trio.move_on_after(WRITING_SECONDS):
            await written.wait()
        nursery.cancel_scope.cancel()
    log.info("the queen has ended")
    for name in sorted(ended.left_running):
        left = f"The hive on {name} could not be ended, and may run still; the next queen tries again."
        lock.unfinished.append(left)
        lifecycle.note(left)
    if ended.failures:
        raise ended.failures[0]
    lock.ended_cleanly = True


async def _write_down(keys: ApiKeys, history: RequestHistory, written: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        nursery.start_soon(history.run)
    written.set()


async def _find_full_name(own_names: set[str]) -> None:
    """Add the name with its domain, by which other machines may know this one."""
    with contained("looking this machine's name up"):
        own_names.add(await own_address.full_name())
