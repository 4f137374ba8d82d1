"""Starts the hive of this host as a child process, and ends the one that a queen started."""

from __future__ import annotations

import logging
import math
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from rbee.adapters.daemon import announce, instance, process
from rbee.concurrency.background import call_when, open_background
from rbee.concurrency.contained import keep_running
from rbee.errors import SpawnFailedError, SpawnTimeoutError, UnloadFailedError

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.wire.progress import Report

log = logging.getLogger(__name__)


class LocalProcess:
    """The process of a hive that this queen, or one before it that was killed, has started here."""

    def __init__(self, settings: Settings, config_file: str | None, *, ephemeral: bool) -> None:
        self._settings = settings
        self._log = settings.logs_dir / "hive.log"
        self._config_file = config_file
        self._ephemeral = ephemeral
        self._children, self._unreaped = trio.open_memory_channel[trio.Process](math.inf)
        self._spawned: trio.Event | None = None
        self._owned: process.Identity | None = None

    def adopt(self, identity: process.Identity) -> None:
        """Take over the hive of an earlier queen: it is ours to end now."""
        self._owned = identity

    async def start(self, report: Report) -> str:
        """Start a hive and return its URL once it answers; raises why it did not."""
        child = await self._spawn()
        limit = self._settings.timeouts.start
        try:
            with trio.fail_after(limit):
                return (await announce.listen(child, report)).url
        except trio.TooSlowError:
            child.kill()
            await child.wait()
            raise SpawnTimeoutError(f"the hive was not ready after {limit:g} s") from None
        except announce.SilentEndError:
            reason = process.describe_end(await child.wait())
            raise SpawnFailedError(f"the hive ended at its start: {reason}", log="hive.log") from None

    async def _spawn(self) -> trio.Process:
        options = ["--config", self._config_file] if self._config_file else []
        if self._ephemeral:
            options.append("--ephemeral")
        self._spawned = trio.Event()
        try:
            child = await process.start(
                [*process.program(), "hive", "--announce", "--started-by", "queen", *options],
                log=self._log,
                hold_stdin=self._ephemeral,
            )
            self._children.send_nowait(child)
            # Ours from now on: the queen may be told to end before the hive is ready.
            self._owned = process.identify(child.pid)
        except OSError as exc:
            raise SpawnFailedError(f"the hive's process cannot be started: {exc.strerror}") from exc
        finally:
            self._spawned.set()
        return child

    async def run(self) -> None:
        """Collect the exit of each hive we start, so that none stays a zombie; runs until cancelled."""
        child: trio.Process | None = None
        try:
            async for child in self._unreaped:
                wait = partial(_log_end, child)
                await keep_running(f"waiting for the hive (pid {child.pid})", wait)
        finally:
            # `end` has seen the hive gone, and may be a moment ahead of us.
            if child is not None:
                child.poll()
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    self._unreaped.receive_nowait().poll()

    async def end(self, force: trio.Event) -> UnloadFailedError | None:
        """End the hive, if one runs that is ours, and return what did not end as it should.

        SIGTERM begins its own cascade, and past every bound it is killed; `force` ends the wait for requests.
        """
        if self._spawned is not None:
            # The system is still making the process, which cannot be cancelled, and nobody knows its pid yet.
            await self._spawned.wait()
        if (owned := self._find_owned()) is None:
            return None
        seconds = self._settings.timeouts.drain + self._settings.timeouts.cascade
        log.info("ending the hive (pid %d)", owned.pid)
        async with open_background() as nursery:
            nursery.start_soon(call_when, force, partial(process.send_signal, owned, signal.SIGTERM))
            was_killed = await process.end(owned, grace=seconds)
        if was_killed:
            log.error("the hive (pid %d) did not end in time and was killed", owned.pid)
            return UnloadFailedError(
                f"the hive (pid {owned.pid}) had not ended {seconds:g} s after it was told to, and was killed",
                hint=f"its log is {self._log}",
            )
        report = instance.exit_report_of(self._settings.state_dir, "hive", owned)
        return None if report is None else report.failure

    def _find_owned(self) -> process.Identity | None:
        """Return the hive that still runs and that a queen started: this one, or one that was killed before."""
        if self._owned is not None and process.is_running(self._owned):
            return self._owned  # it may not have got so far as to publish its address
        running = instance.find(self._settings.state_dir, "hive")
        return running.identity if running is not None and running.started_by == "queen" else None


async def _log_end(child: trio.Process) -> None:
    log.info("the hive (pid %d) ended: %s", child.pid, process.describe_end(await child.wait()))
