"""Carries out what a hive's pool decides: each effect that takes time is a task, and its result a decision again."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from rbee.adapters.daemon import announce
from rbee.concurrency.contained import contained, keep_running
from rbee.concurrency.outcome import Outcome
from rbee.errors import ModelInUseError
from rbee.hive.workers import rows, view
from rbee.hive.workers.effects import (
    AskToEnd,
    AskToLeave,
    CheckHealth,
    Delete,
    Follow,
    Kill,
    Launch,
    Reply,
    Save,
    Terminate,
)
from rbee.hive.workers.record import ProcessExit
from rbee.wire.common import Narration
from rbee.wire.hive import SpawnReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rbee.adapters.store.write_behind import WriteBehind
    from rbee.errors import RbeeError
    from rbee.hive.workers.effects import Effect
    from rbee.hive.workers.host import WorkerMachine, WorkerProcess
    from rbee.hive.workers.loop import Decision
    from rbee.hive.workers.pool import Pool
    from rbee.hive.workers.record import WorkerRecord
    from rbee.wire.progress import ProgressEvent, Report
    from rbee.wire.worker import EndedRequest, WorkerStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """One caller: takes progress, and is settled once the worker answers HTTP."""

    report: Report
    outcome: Outcome[SpawnReply] = field(default_factory=Outcome[SpawnReply])


@dataclass
class Execution:
    """Carries out effects, in tasks of `nursery`; `decide` has a decision made about what comes of them."""

    nursery: trio.Nursery
    pool: Pool
    machine: WorkerMachine
    stored: WriteBehind
    decide: Callable[[Decision], None]
    on_ended: Callable[[EndedRequest], None] = lambda _: None
    """Is told of each request that ends at a worker."""
    starts: dict[str, list[Start]] = field(default_factory=dict, init=False)
    """The callers that wait for a worker to start, by its id; several may wait for the same one."""
    _processes: dict[str, WorkerProcess] = field(default_factory=dict, init=False)
    _follow_scopes: dict[str, trio.CancelScope] = field(default_factory=dict, init=False)
    _end_replies: dict[str, trio.Event] = field(default_factory=dict, init=False)

    @property
    def worker_ids(self) -> set[str]:
        return {*self._processes, *self._follow_scopes, *self._end_replies}

    def perform(self, effects: Sequence[Effect]) -> None:
        """Begin to carry out effects; returns at once."""
        for effect in effects:
            worker = effect.worker
            match effect:
                case Launch():
                    self._start("starting a worker", self._run_process, worker)
                case Follow():
                    # Made here: the worker may be deleted before the task has run a line, and must end then too.
                    scope = self._follow_scopes[worker.id] = trio.CancelScope()
                    self._start("following a worker", self._follow, worker, scope)
                case Reply(error=error):
                    self._reply(worker, error)
                case CheckHealth():
                    self._start("a worker's health check", self._check_health, worker)
                case AskToEnd():
                    replied = self._end_replies[worker.id] = trio.Event()
                    self._start("asking a worker to end", self._ask_to_end, worker, replied)
                case AskToLeave():
                    self._start("asking a worker to make room", self._ask_to_leave, worker)
                case Terminate():
                    self._signal(worker, signal.SIGTERM)
                case Kill():
                    log.warning("worker %s is killed", worker.id)
                    self._signal(worker, signal.SIGKILL)
                case Save():
                    if (process := self._processes.get(worker.id)) is not None:
                        save = partial(rows.save, worker=replace(worker), identity=process.identity)
                        self.stored.put(worker.id, save)
                case Delete(reason=reason):
                    self._delete(worker, reason)

    def watch_adopted(self, worker: WorkerRecord, process: WorkerProcess) -> None:
        """Watch the process of a worker that an earlier hive started."""
        self._processes[worker.id] = process
        self._start("watching a worker", self._watch_adopted, worker, process)

    def _start(self, doing: str, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a task of one worker; what nobody foresaw ends neither the others nor the hive."""

        async def run() -> None:
            with contained(doing):
                await work(*arguments)

        self.nursery.start_soon(run)

    async def wait_end_reply(self, worker_id: str) -> None:
        """Return once the worker has replied to the request to end, or failed to; at once if there was none."""
        if (replied := self._end_replies.get(worker_id)) is not None:
            await replied.wait()

    async def _run_process(self, worker: WorkerRecord) -> None:
        report = partial(self._report, worker.id)
        target = f"{worker.spec.backend}:{worker.spec.device}"
        human = f"Starting a worker for {worker.spec.model_ref} on {target}"

        def fail(error: RbeeError) -> None:
            self.decide(lambda: self.pool.launch_failed(worker.id, error))

        process: WorkerProcess | None = None
        with contained("starting a worker's process", fail):
            report(Narration(actor="rbee-hive", action="start", target=worker.spec.model_ref, human=human))
            process = await self.machine.launch(worker)
        if process is None:
            return
        self._processes[worker.id] = process
        log.info("worker %s started with pid %d", worker.id, process.identity.pid)
        self.decide(lambda: self.pool.launched(worker.id, process.identity.pid))
        announced: list[RbeeError] = []
        ends: list[str] = []
        wait = partial(_note_end, process, ends)
        with contained("watching a worker"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, process, report, announced)
                await keep_running("waiting for a worker's end", wait)
                nursery.cancel_scope.deadline = trio.current_time() + 1  # a grandchild may hold the pipe open
        # Once more: whatever went wrong there, its end must not be missed.
        await keep_running("waiting for a worker's end", wait)
        self._exited(worker, ends[0], announced[0] if announced else None)

    async def _listen(
        self, process: WorkerProcess, report: Callable[[Narration], None], announced: list[RbeeError]
    ) -> None:
        # A silent end is none of them: the worker's exit says more.
        with contained("listening to a worker", announced.append), suppress(announce.SilentEndError):
            await process.listen(report)

    async def _watch_adopted(self, worker: WorkerRecord, process: WorkerProcess) -> None:
        ends: list[str] = []
        await keep_running("waiting for a worker's end", partial(_note_end, process, ends))
        self._exited(worker, ends[0], None)

    def _exited(self, worker: WorkerRecord, how: str, announced: RbeeError | None) -> None:
        lines: list[str] = []
        with contained("reading a worker's log"):
            lines = self.machine.last_lines(worker.id)
        how = with_last_words(how, lines)
        process_exit = ProcessExit(how, time.time(), self.machine.log_name(worker.id), tuple(lines))
        log.info("worker %s ended: %s", worker.id, how)
        self.decide(lambda: self.pool.exited(worker.id, process_exit, announced))

    def _report(self, worker_id: str, event: ProgressEvent) -> None:
        for start in self.starts.get(worker_id, ()):
            start.report(event)

    def _settle(self, worker_id: str, result: SpawnReply | RbeeError) -> None:
        for start in self.starts.pop(worker_id, ()):
            start.outcome.settle(result)

    def _reply(self, worker: WorkerRecord, error: RbeeError | None) -> None:
        if error is not None:
            error.details.setdefault("log", self.machine.log_name(worker.id))
            self._settle(worker.id, error)
            return
        # The worker announces this too, but only once this reply has gone.
        human = f"The worker has called back from {worker.url}"
        self._report(worker.id, Narration(actor="rbee-hive", action="ready_callback", target=worker.id, human=human))
        self._settle(worker.id, view.spawn_reply(worker, self.machine.key_of(worker.id)))

    async def _follow(self, worker: WorkerRecord, scope: trio.CancelScope) -> None:
        def on_status(status: WorkerStatus) -> None:
            for request in status.ended:
                self.on_ended(msgspec.structs.replace(request, worker_id=worker.id))
            self.decide(lambda: self.pool.status(worker.id, status, trio.current_time(), time.time()))

        with scope:
            await keep_running("following a worker", partial(self.machine.follow, worker, on_status))

    async def _check_health(self, worker: WorkerRecord) -> None:
        is_alive = False
        with contained("a worker's health check"):
            is_alive = await self.machine.is_alive(worker)
        self.decide(lambda: self.pool.checked(worker.id, is_alive=is_alive, now=trio.current_time(), unix=time.time()))

    async def _ask_to_end(self, worker: WorkerRecord, replied: trio.Event) -> None:
        has_accepted = False
        try:
            with contained("asking a worker to end"):
                has_accepted = await self.machine.ask_to_end(worker)
        finally:
            replied.set()
        if not has_accepted:
            self.decide(lambda: self.pool.refused_to_end(worker.id))

    async def _ask_to_leave(self, worker: WorkerRecord) -> None:
        has_accepted = False
        with contained("asking a worker to make room"):
            try:
                has_accepted = await self.machine.ask_to_leave(worker)
            except ModelInUseError:
                log.info("worker %s has a request, and makes no room", worker.id)
                self.decide(lambda: self.pool.stays(worker.id, trio.current_time()))
                return
        if not has_accepted:
            self.decide(lambda: self.pool.refused_to_end(worker.id))

    def _signal(self, worker: WorkerRecord, number: signal.Signals) -> None:
        if (process := self._processes.get(worker.id)) is not None:
            process.send(number)

    def _delete(self, worker: WorkerRecord, reason: str | None) -> None:
        if reason is not None:
            log.error("worker %s (pid %s) ended: %s", worker.id, worker.pid, reason)
        if (scope := self._follow_scopes.pop(worker.id, None)) is not None:
            scope.cancel()
        self._processes.pop(worker.id, None)
        self._end_replies.pop(worker.id, None)
        self.stored.put(worker.id, partial(rows.delete, worker_id=worker.id))
        self._start("removing old logs", self.machine.remove_old_logs, set(self.pool.workers))


async def _note_end(process: WorkerProcess, ends: list[str]) -> None:
    """Add to `ends` how a process has ended, once it has."""
    ends.append(await process.wait())


def with_last_words(how: str, lines: list[str]) -> str:
    """Add to `how` a worker ended the last line for people in its log."""
    words = [line.removeprefix("rbee: ") for line in lines if line.startswith("rbee: ")]
    return f"{how}: {words[-1]}" if words else how
