"""Starts the worker: from its command line to serving, and from a signal to its end."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee import __version__
from rbee.adapters import arguments, config
from rbee.adapters.arguments import HelpAction, Parser
from rbee.adapters.daemon import lifecycle
from rbee.adapters.daemon.announce import Announcer, Ready
from rbee.adapters.http import client as http_client
from rbee.adapters.http import server as http_server
from rbee.adapters.logs import json_log
from rbee.concurrency.background import open_background
from rbee.concurrency.contained import as_error, keep_running
from rbee.errors import InvalidConfigurationError, ModelLoadFailedError
from rbee.wire.common import CACHE_TYPES, Narration
from rbee.wire.hive import WORKERS_READY, ReadyCallback
from rbee.worker.engine.backend import EngineFailedError
from rbee.worker.llama import loading
from rbee.worker.prefix_store.opening import open_store
from rbee.worker.serving import routes
from rbee.worker.serving.service import Service
from rbee.worker.status.orphan import end_when_orphaned
from rbee.worker.status.status import Status

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping
    from rbee.worker.llama.context import Context
    from rbee.worker.prefix_store.store import PrefixStore

log = logging.getLogger(__name__)

ROLE: Final = "llm-worker-rbee"
MAX_KEY_LINE: Final = 4096
SWITCH_SECONDS: Final = 0.0005
"""How long Python lets one thread run while another wants to: its 5 ms are longer than many a decode step, and the
engine thread would spend them waiting for trio's to finish sending the last token."""
BLOCK: Final = 64
"""Tokens of a part of a prompt that is kept: some MB, and less than a second to compute what a whole one lacks."""
FAREWELL_SECONDS: Final = 0.5
"""From the failure of the engine to the worker's end."""


class Secret(msgspec.Struct):
    """What the hive writes on stdin: arguments and environment can be read by others, a pipe cannot."""

    key: str


def main(argv: list[str]) -> int:
    """Run the worker until it is asked to end; returns the exit code."""
    parser = Parser(
        prog="rbee worker",
        description="Run one model. The hive starts its workers; users never need to.\n",
    )
    parser.add_argument("--id", metavar="UUID", required=True, help="the worker's UUID")
    parser.add_argument("--model-ref", metavar="REF", required=True, help="the model's reference")
    parser.add_argument("--model-path", metavar="FILE", required=True, type=Path, help="the model's GGUF file")
    parser.add_argument("--backend", metavar="NAME", default="cpu", help="cpu, cuda, … (default: cpu)")
    parser.add_argument(
        "--device", metavar="N", type=int, default=0, help="the index of the backend's device (default: 0)"
    )
    parser.add_argument("--slots", metavar="N", type=int, help="the number of requests served at once")
    parser.add_argument("--context", metavar="N", type=int, help="the tokens that each of these requests is sure of")
    parser.add_argument("--longest", metavar="N", type=int, help="the most tokens of one request (default: as many)")
    parser.add_argument("--kv", metavar="TYPE", choices=CACHE_TYPES, default="f16", help="f16, q8_0 or q4_0")
    parser.add_argument(
        "--memory", metavar="BYTES", type=int, default=0, help="the memory that the hive has reserved for it"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="the number of compute threads")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument("--advertise", metavar="HOST", help="host name or address in the worker's URL")
    parser.add_argument("--port-from", metavar="N", type=int, help="the first port to try")
    parser.add_argument("--hive-url", metavar="URL", required=True, help="the hive to report to")
    parser.add_argument("--log", metavar="FILE", type=Path, help="the log file (default: stderr)")
    parser.add_argument("--config", metavar="FILE", help="read settings from this file")
    parser.add_argument("--ephemeral", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action=HelpAction)
    options = arguments.read(parser, argv)
    json_log.to_stderr(ROLE)
    announcer = Announcer(True)
    flags = {
        "worker": {
            "slots": options.slots,
            "context": options.context,
            "threads": options.threads,
            "port_from": options.port_from,
        }
    }

    async def daemon(stopping: Stopping) -> None:
        # Before the first await: after it the pipe may be watched for its end.
        key = read_key(sys.stdin.buffer.readline(MAX_KEY_LINE))
        settings = config.load(flags, file=options.config)
        if options.log is not None:
            json_log.to_file(ROLE, options.log, settings.logs.max_bytes)
        await _WorkerDaemon(options, key, settings, announcer, stopping).run()

    sys.setswitchinterval(SWITCH_SECONDS)
    return lifecycle.run(daemon, announcer, ephemeral=options.ephemeral)


def read_key(line: bytes) -> str:
    """Return the key in the line that the hive wrote."""
    try:
        return msgspec.json.decode(line, type=Secret).key
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidConfigurationError(
            "a worker reads its key from stdin, as its hive writes it",
            hint="workers are started by a hive: `rbee hive`, or simply `rbee infer`",
        ) from None


@dataclass
class _WorkerDaemon:
    """The worker's parts, and the order in which they begin and end."""

    options: argparse.Namespace
    key: str
    settings: Settings
    announcer: Announcer
    stopping: Stopping

    def __post_init__(self) -> None:
        self._status = Status(self.settings.worker.slots)
        self._service = Service(self._status)

    async def run(self) -> None:
        options, status = self.options, self._status
        log.info("starting for %s on %s:%d", options.model_ref, options.backend, options.device)
        listener = http_server.bind_first(options.host, self.settings.worker.port_from)
        url = http_server.base_url(listener, options.advertise)
        identity = routes.WorkerIdentity(options.id, self.key, url)
        async with trio.open_nursery() as nursery:
            app = routes.new(
                identity,
                status,
                self._service,
                timeouts=self.settings.timeouts,
                nursery=nursery,
                shut_down=self.stopping.ask,
            )
            server = http_server.Server(app, listener, stalled=self.settings.timeouts.stalled)
            await nursery.start(server.run)
            self._narrate("http_ready", f"The worker answers HTTP at {url}")
            async with open_background() as work:
                work.start_soon(self._work, url)
                end = partial(end_when_orphaned, status, self.settings.timeouts.orphan, self.stopping.ask)
                work.start_soon(keep_running, "watching for a hive", end)
                await self.stopping.asked.wait()
                log.info("draining: %d requests run", status.now.running)
                await self._service.drain(self.settings.timeouts.drain, self.stopping.forced)
            status.close()
            await server.stop()
            nursery.cancel_scope.cancel()
        log.info("the worker has ended")
        if not status.now.is_loaded and status.now.error is None:
            # A thread may still be in native code, whose destructors must not run beside it.
            os._exit(0)

    async def _work(self, url: str) -> None:
        """Call the hive back, load, then serve requests until cancelled."""
        await self._call_back(url)
        worker = self.settings.worker
        options = loading.LoadOptions(
            path=self.options.model_path,
            backend=self.options.backend,
            device=self.options.device,
            slots=worker.slots,
            context=worker.context,
            threads=worker.threads,
            memory=self.options.memory,
            longest=self.options.longest,
            kv=self.options.kv,
        )
        started = time.monotonic()
        log.info("loading %s", options.path.name)
        try:
            loaded = await loading.load(options, self._status.set_loading)
        except ModelLoadFailedError as exc:
            # The worker stays to say why: those that wait for it ask over HTTP.
            log.error("%s", exc.message)  # noqa: TRY400 (expected: needs no traceback)
            self._status.set_failed(exc)
            return
        except Exception as exc:  # noqa: BLE001 (to be told as any other failure)
            self._status.set_failed(as_error(exc, "loading the model"))
            return
        log.info(
            "loaded %.1f MB, %d layers, in %.0f ms; %d slots, %d tokens in all in %s, compute threads: %d",
            loaded.model.size_bytes / 1e6,
            loaded.model.layers,
            (time.monotonic() - started) * 1e3,
            loaded.context.slots,
            min(loaded.context.pool, loaded.context.slots * loaded.context.length),
            options.kv,
            loaded.context.threads,
        )
        store = None
        try:
            store = await trio.to_thread.run_sync(self._open_store, loaded.context)
            await self._service.run(
                loaded.context, store, guesses=worker.speculation, longest_pause=worker.longest_pause
            )
        except EngineFailedError as exc:
            log.exception("the engine failed")
            self._status.set_failed(exc)
            await trio.sleep(FAREWELL_SECONDS)  # for the streams to end with the error
            raise
        finally:
            if store is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(store.close)
            loaded.close()

    def _open_store(self, context: Context) -> PrefixStore | None:
        """Open what keeps prompts outside the context: in blocks where any token of one can be the last."""
        if 0 < context.vocabulary.window < BLOCK:
            return None  # of a block only the last tokens would be there
        block = BLOCK if context.can_cut else None
        memory = self.options.memory
        return open_store(self.settings.cache, block=block, model_key=context.origin, memory=memory)

    async def _call_back(self, url: str) -> None:
        """Report to the hive where the worker listens: the one call upwards, a hint to look and never the truth."""
        options = self.options
        where = {"model_ref": options.model_ref, "backend": options.backend, "device": options.device}
        callback = ReadyCallback(worker_id=options.id, url=url, **where)
        limits = self.settings.timeouts
        async with http_client.connect(options.hive_url, self.key, timeout=limits.call) as hive:
            await http_client.call(hive, "POST", WORKERS_READY, bytes, body=callback, delays=limits.call_delays)
        self._narrate("ready_callback", "The hive knows the worker; the model loads next")
        self.announcer.ready(Ready(url, os.getpid(), __version__))

    def _narrate(self, action: str, sentence: str) -> None:
        log.info("%s", sentence)
        self.announcer.report(Narration(actor=ROLE, action=action, target=self.options.id, human=sentence))
