"""The hive's process: from its command line to serving, and from a signal to its end."""

from __future__ import annotations

import argparse
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee import __version__
from rbee.adapters import arguments, config, tokens
from rbee.adapters.arguments import HelpAction, Parser, whole
from rbee.adapters.daemon import lifecycle, process
from rbee.adapters.daemon.announce import Announcer, Ready
from rbee.adapters.daemon.instance import InstanceLock
from rbee.adapters.daemon.systemd import Notifier
from rbee.adapters.http import server as http_server
from rbee.adapters.logs import json_log
from rbee.adapters.store.sqlite import Store
from rbee.concurrency.contained import keep_running
from rbee.errors import InvalidConfigurationError, UnloadFailedError
from rbee.hive import tables
from rbee.hive.catalogue.catalogue import Catalogue
from rbee.hive.models import abandoned
from rbee.hive.models.library import Library
from rbee.hive.routes import app as routes
from rbee.hive.routes.context import HiveContext
from rbee.hive.workers import interface, rows
from rbee.hive.workers.processes import LocalMachine
from rbee.hive.workers.supervisor import WorkerSupervisor
from rbee.wire import addresses
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping

log = logging.getLogger(__name__)

ROLE: Final = "rbee-hive"
HELP: Final = """\
Run this machine's hive in the foreground. It keeps the models and runs the workers of this machine.

Ctrl+C ends it and everything it started.
"""


def main(argv: list[str]) -> int:
    """Run the hive until a signal or a request ends it; returns the exit code."""
    parser = Parser(prog="rbee hive", description=HELP)
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", metavar="N", type=whole(0, 65535), help="port to listen on (default: 9200)")
    parser.add_argument("--advertise", metavar="HOST", help="host name or address in the workers' URLs")
    parser.add_argument("--config", metavar="FILE", help="read settings from this file")
    parser.add_argument("--ephemeral", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--started-by", choices=("user", "queen"), default="user", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action=HelpAction)
    options = arguments.read(parser, argv)
    announcer = Announcer(options.announce)
    notifier = Notifier(enabled=not options.announce)
    flags = {"hive": {"host": options.host, "port": options.port, "advertise": options.advertise}}

    async def daemon(stopping: Stopping) -> None:
        settings = config.load(flags, file=options.config)
        with InstanceLock(settings.state_dir, "hive") as lock:
            await _serve(lock, settings, options, announcer, notifier, stopping)

    return lifecycle.run(daemon, announcer, ephemeral=options.ephemeral)


async def _serve(
    lock: InstanceLock,
    settings: Settings,
    options: argparse.Namespace,
    announcer: Announcer,
    notifier: Notifier,
    stopping: Stopping,
) -> None:
    json_log.to_file(ROLE, settings.logs_dir / "hive.log", settings.logs.max_bytes)
    # First, because whether a token may be made depends on an address that we can listen on.
    listener = http_server.bind(
        settings.hive.host, settings.hive.port, setting="--port, `port` under [hive], or RBEE_HIVE_PORT"
    )
    token = _token(settings, started_by=options.started_by)
    store = await Store.open(settings.state_dir / "models.db", tables.MIGRATIONS)
    if store.damage is not None:
        human = f"{store.damage} from the files on the disk"
        announcer.report(Narration(actor=ROLE, action="rebuild", target="models.db", human=human))
    known = rows.compare(await store.transact(rows.last_known), process.is_running)
    url = http_server.base_url(listener)
    catalogue = Catalogue(settings.paths.models, store.transact)
    await catalogue.reconcile()
    library = Library(settings, catalogue, token)
    machine = LocalMachine(settings, library, token, url, options.ephemeral)
    await machine.remove_old_logs({worker.id for worker in known.surviving})
    workers = WorkerSupervisor(settings.timeouts, machine, store.transact, max_memory=settings.hive.max_memory_bytes)
    for worker in await interface.without_others(known.surviving):
        workers.adopt(worker)
    for worker_id in known.gone:
        workers.forget(worker_id)
    try:
        async with trio.open_nursery() as nursery:
            started_by = options.started_by
            context = HiveContext(settings, token, workers, library, nursery, stopping.ask, started_by, lock.id)
            await nursery.start(library.downloads.run)
            server = http_server.Server(routes.build(context), listener, stalled=settings.timeouts.stalled)
            await nursery.start(server.run)
            if announcer.is_abandoned() and not known.surviving:
                # The queen was killed while it waited for us: neither its successor nor a `rbee down` knows of us.
                log.info("the queen that started this hive has gone before it was ready")
                nursery.cancel_scope.cancel()
                return
            lock.publish(url, __version__, ephemeral=options.ephemeral, started_by=options.started_by)
            log.info("the hive %s answers at %s", __version__, url)
            announcer.ready(Ready(url, os.getpid(), __version__, lock.id))
            notifier.ready(f"The hive answers at {url}")
            announcer.tell(f"The hive answers at {url}; `rbee logs --follow` shows what it does, Ctrl+C ends it.")
            nursery.start_soon(keep_running, "the watchdog's messages", notifier.keep_alive)
            nursery.start_soon(keep_running, "hashing model files", library.hash_files)
            nursery.start_soon(keep_running, "pushed files", library.pushed.run)
            nursery.start_soon(keep_running, "watching model files", workers.watch_files)
            tidying = partial(abandoned.keep_removing, settings.paths.models)
            nursery.start_soon(keep_running, "removing abandoned downloads", tidying)
            end = partial(
                _end_when_asked, stopping, workers, library, notifier, settings.timeouts.ending, announcer.tell
            )
            nursery.start_soon(keep_running, "the end of the hive", end)
            await workers.run()
            await server.stop()
            nursery.cancel_scope.cancel()
        lock.ended_cleanly = True
        if stuck := workers.pool.stuck:
            raise UnloadFailedError(
                "; ".join(ended.reason for ended in stuck if ended.reason),
                hint="their logs: " + ", ".join(str(settings.logs_dir / ended.exit.log) for ended in stuck),
            )
    finally:
        with trio.CancelScope(shield=True):
            await store.close()
        log.info("the hive has ended")


def _token(settings: Settings, *, started_by: str) -> str:
    """Return the swarm's token. Only a user's own hive that no other machine can reach makes one.

    Raises InvalidConfigurationError if it is missing.
    """
    if started_by == "user" and addresses.is_loopback(settings.hive.host):
        return tokens.load_or_create(settings.token_file)
    if (token := tokens.read(settings.token_file)) is None:
        raise InvalidConfigurationError(
            f"the swarm's token is missing: there is no file {settings.token_file.name} where `token_file` says",
            hint="`rbee setup install --node NAME`, on the queen's machine, brings it here",
            key="auth.token_file",
        )
    return token


async def _end_when_asked(
    stopping: Stopping,
    workers: WorkerSupervisor,
    library: Library,
    notifier: Notifier,
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    await stopping.asked.wait()
    log.info("shutting down")
    notifier.stopping("Ending the workers", seconds)
    tell("Ending the workers; Ctrl+C again ends running requests at once.")
    library.downloads.stop()
    workers.stop()
    await stopping.forced.wait()
    workers.force()
