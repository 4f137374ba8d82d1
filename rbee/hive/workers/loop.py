"""Owns the state of a hive: one task takes what happened, asks the pool what to do, and starts the doing.

Whoever wants a change sends a function over the inbox; only this task calls it, so the pool needs no lock. Effects run
in tasks of their own, and what comes of them arrives in the inbox again.
"""

from __future__ import annotations

import logging
import math
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.daemon import announce
from rbee.adapters.store.write_behind import WriteBehind
from rbee.errors import RbeeError
from rbee.hive.workers import rows, view
from rbee.hive.workers.effects import Answer, AskToEnd, CheckHealth, Follow, Forget, Keep, Kill, Launch, Terminate
from rbee.hive.workers.pool import Ending, Limits, Pool
from rbee.hive.workers.record import Spec
from rbee.wire import hive as wire
from rbee.wire import model_ref
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from rbee.adapters.store.sqlite import Transact
    from rbee.hive.workers.effects import Effect
    from rbee.hive.workers.machine import Child, Machine
    from rbee.hive.workers.record import Ended, Worker
    from rbee.hive.workers.rows import LastKnownWorker
    from rbee.wire.models import ModelRow
    from rbee.wire.progress import Report
    from rbee.wire.worker import WorkerStatus

    Decision = Callable[[], list[Effect]]

log = logging.getLogger(__name__)

ACCEPT_SECONDS: Final = 3.0
"""For a worker to accept its end, where somebody waits for that; less than a short call may take."""


class _Start:
    """Someone waits for a worker to answer HTTP; several may wait for the same one."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.done = trio.Event()
        self.result: wire.SpawnReply | RbeeError | None = None

    def settle(self, result: wire.SpawnReply | RbeeError) -> None:
        self.result = result
        self.done.set()


class Hive:
    """The hive of one machine; `transact` runs a function on the registry, in one transaction."""

    def __init__(self, limits: Limits, machine: Machine, transact: Transact) -> None:
        self._machine = machine
        self._pool = Pool(limits)
        self._send, self._inbox = trio.open_memory_channel[Callable[[], None]](math.inf)
        self._rows = WriteBehind(transact)
        self._starts: dict[str, list[_Start]] = {}
        self._children: dict[str, Child] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._answered: dict[str, trio.Event] = {}
        self.is_over = False
        self.changed = trio.Event()
        """Set and replaced with each change; who takes it before looking misses nothing that lasts."""

    # What others may ask.

    def view(self) -> wire.WorkerList:
        """Return the workers as they are now."""
        return view.workers(self._pool)

    def keys(self) -> list[str]:
        """Return the keys of all workers."""
        return [self.key_of(worker_id) for worker_id in self._pool.workers]

    def key_of(self, worker_id: str) -> str:
        """Return the key that opens a worker, and with which it calls back."""
        return self._machine.key_of(worker_id)

    async def spawn(self, request: wire.SpawnRequest, report: Report) -> wire.SpawnReply:
        """Check, start a worker, and return once it answers HTTP; its model loads meanwhile.

        When the caller is cancelled the worker is started all the same: it is there for the next request.
        """
        spec = await self._machine.plan(request, report)
        start = _Start(report)

        def decide() -> list[Effect]:
            # Here and not at who asks: what he saw of the workers is past.
            known = self._pool.like(spec) if request.reuse else None
            if known is not None:
                if known.phase == "starting":
                    self._starts[known.id].append(start)
                else:
                    start.settle(self._reply(known))
                return []
            worker_id = str(uuid.uuid4())
            try:
                effects = self._pool.spawn(worker_id, spec, self._machine.available_memory(spec), trio.current_time())
            except RbeeError as exc:
                start.settle(exc)
                return []
            self._starts[worker_id] = [start]
            return effects

        self._decide(decide)
        await start.done.wait()
        assert start.result is not None
        if isinstance(start.result, RbeeError):
            raise start.result
        return start.result

    def _reply(self, worker: Worker) -> wire.SpawnReply:
        return wire.SpawnReply(
            worker_id=worker.id, url=worker.url or "", state=worker.state, api_key=self.key_of(worker.id)
        )

    async def called_back(self, callback: wire.ReadyCallback) -> None:
        """A worker says that its port is bound. Raises WorkerNotFoundError."""
        await self._ask(lambda: self._pool.called_back(callback.worker_id, callback.url, trio.current_time()))

    async def end_worker(self, worker_id: str) -> None:
        """Begin to end a worker; returns once it has accepted that. Raises WorkerNotFoundError.

        One that does not accept it is ended all the same: nobody waits for it longer than a short call may take.
        """
        await self._ask(lambda: self._pool.end(worker_id, trio.current_time()))
        if (answered := self._answered.get(worker_id)) is not None:
            with trio.move_on_after(ACCEPT_SECONDS):
                await answered.wait()

    async def users_of(self, row: ModelRow) -> list[str]:
        """Return the ids of the workers that have a model, those that still start too."""
        found: list[str] = []

        def look() -> list[Effect]:
            for worker in self._pool.workers.values():
                # Of a worker that an earlier hive started the reference alone is known, and it may be another name.
                ref = model_ref.parse(worker.spec.model_ref)
                adopted = not worker.spec.path and (ref.provider, ref.reference) == (row.provider, row.reference)
                if adopted or worker.spec.path == row.local_path:
                    found.append(worker.id)
            return []

        await self._ask(look)
        return found

    def adopt(self, known: LastKnownWorker) -> None:
        """Take over a worker that an earlier hive left running."""
        spec = Spec(
            known.model_ref, "", known.backend, known.device, known.resource, known.slots_total, None, known.memory
        )
        self._children[known.id] = child = self._machine.adopted(known.identity)

        def decide() -> list[Effect]:
            found = self._pool.adopt(known.id, spec, known.url, known.identity.pid, trio.current_time())
            self._nursery.start_soon(self._watch_adopted, self._pool.workers[known.id], child)
            return found

        self._decide(decide)

    def forget(self, worker_id: str) -> None:
        """Drop what is stored of a worker that has ended since an earlier hive stored it."""
        self._rows.put(worker_id, partial(rows.delete, worker_id=worker_id))

    def stuck(self) -> list[Ended]:
        """Return the workers that had to be killed for the hive to end."""
        return self._pool.stuck

    def stop(self) -> None:
        """Begin to end every worker; `run` returns once they are gone."""
        self._decide(lambda: self._pool.stop(trio.current_time()))

    def force(self) -> None:
        """Stop waiting for running requests."""
        self._decide(lambda: self._pool.force(trio.current_time()))

    # The loop.

    async def run(self) -> None:
        """Run until the hive has been stopped and every worker is gone."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._rows.run)
            while not (self._pool.stopping and not self._pool.workers):
                due = self._pool.due()
                with trio.move_on_at(math.inf if due is None else due):
                    (await self._inbox.receive())()
                self._perform(self._pool.tick(trio.current_time()))
            with suppress(trio.WouldBlock):
                while True:
                    self._inbox.receive_nowait()()  # whoever still asks is told that the hive is shutting down
            self.is_over = True
            self._tell()
            self._rows.close()

    def _decide(self, decision: Decision) -> None:
        """Have the owner make a decision and carry it out."""
        self._have_done(lambda: self._perform(decision()))

    def _have_done(self, work: Callable[[], None]) -> None:
        """Give the owner something to do. Once its loop is over nobody else decides, and nobody would take it."""
        if self.is_over:
            work()
        else:
            self._send.send_nowait(work)

    async def _ask(self, decision: Decision) -> None:
        """Have the owner make a decision, and wait for it; its error is raised here."""
        done = trio.Event()
        failures: list[RbeeError] = []

        def attempt() -> None:
            try:
                self._perform(decision())
            except RbeeError as exc:
                failures.append(exc)
            finally:
                done.set()

        self._have_done(attempt)
        await done.wait()
        if failures:
            raise failures[0]

    def _perform(self, effects: list[Effect]) -> None:
        if not effects:
            return
        for effect in effects:
            worker = effect.worker
            match effect:
                case Launch():
                    self._nursery.start_soon(self._run_child, worker)
                case Follow():
                    # Made here: the worker may be forgotten before the task has run a line, and must end then too.
                    scope = self._scopes[worker.id] = trio.CancelScope()
                    self._nursery.start_soon(self._follow, worker, scope)
                case Answer(error=error):
                    self._answer(worker, error)
                case CheckHealth():
                    self._nursery.start_soon(self._check_health, worker)
                case AskToEnd():
                    answered = self._answered[worker.id] = trio.Event()
                    self._nursery.start_soon(self._ask_to_end, worker, answered)
                case Terminate():
                    self._signal(worker, signal.SIGTERM)
                case Kill():
                    log.warning("worker %s is killed", worker.id)
                    self._signal(worker, signal.SIGKILL)
                case Keep():
                    if (child := self._children.get(worker.id)) is not None:
                        save = partial(rows.save, worker=replace(worker), identity=child.identity)
                        self._rows.put(worker.id, save)
                case Forget(reason=reason):
                    if reason is not None:
                        log.error("worker %s (pid %s) ended: %s", worker.id, worker.pid, reason)
                    if (followed := self._scopes.pop(worker.id, None)) is not None:
                        followed.cancel()
                    self._children.pop(worker.id, None)
                    self._answered.pop(worker.id, None)
                    self._rows.put(worker.id, partial(rows.delete, worker_id=worker.id))
                    self._nursery.start_soon(self._machine.remove_old_logs, set(self._pool.workers))
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    # Effects.

    async def _run_child(self, worker: Worker) -> None:
        def report(narration: Narration) -> None:
            for start in self._starts.get(worker.id, ()):
                start.report(narration)

        target = f"{worker.spec.backend}:{worker.spec.device}"
        human = f"Starting a worker for {worker.spec.model_ref} on {target}"
        report(Narration(actor="rbee-hive", action="start", target=worker.spec.model_ref, human=human))
        try:
            child = await self._machine.launch(worker)
        except RbeeError as exc:
            failure = exc
            self._decide(lambda: self._pool.launch_failed(worker.id, failure))
            return
        self._children[worker.id] = child
        log.info("worker %s started with pid %d", worker.id, child.identity.pid)
        self._decide(lambda: self._pool.launched(worker.id, child.identity.pid))
        announced: list[RbeeError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, child, report, announced)
            how = await child.wait()
            nursery.cancel_scope.deadline = trio.current_time() + 1  # a grandchild may hold the pipe open
        self._ended(worker, how, announced[0] if announced else None)

    async def _watch_adopted(self, worker: Worker, child: Child) -> None:
        self._ended(worker, await child.wait(), None)

    def _ended(self, worker: Worker, how: str, announced: RbeeError | None) -> None:
        lines = self._machine.last_lines(worker.id)
        ending = Ending(with_last_words(how, lines), time.time(), self._machine.log_name(worker.id), tuple(lines))
        log.info("worker %s ended: %s", worker.id, ending.how)
        self._decide(lambda: self._pool.exited(worker.id, ending, announced))

    async def _listen(self, child: Child, report: Callable[[Narration], None], announced: list[RbeeError]) -> None:
        try:
            await child.listen(report)
        except announce.SilentEndError:
            pass  # its exit says more
        except RbeeError as exc:
            announced.append(exc)

    def _answer(self, worker: Worker, error: RbeeError | None) -> None:
        if error is not None:
            error.details.setdefault("log", self._machine.log_name(worker.id))
        # The worker says so too, but only once this answer has gone.
        human = f"The worker has called back from {worker.url}"
        narration = Narration(actor="rbee-hive", action="ready_callback", target=worker.id, human=human)
        for start in self._starts.pop(worker.id, ()):
            if error is None:
                start.report(narration)
            start.settle(error or self._reply(worker))

    async def _follow(self, worker: Worker, scope: trio.CancelScope) -> None:
        def changed(status: WorkerStatus) -> None:
            self._decide(lambda: self._pool.status(worker.id, status, trio.current_time(), time.time()))

        with scope:
            await self._machine.follow(worker, changed)

    async def _check_health(self, worker: Worker) -> None:
        alive = await self._machine.is_alive(worker)
        self._decide(lambda: self._pool.checked(worker.id, is_alive=alive, now=trio.current_time(), unix=time.time()))

    async def _ask_to_end(self, worker: Worker, answered: trio.Event) -> None:
        try:
            has_accepted = await self._machine.ask_to_end(worker)
        finally:
            answered.set()
        if not has_accepted:
            self._decide(lambda: self._pool.refused_to_end(worker.id))

    def _signal(self, worker: Worker, number: signal.Signals) -> None:
        if (child := self._children.get(worker.id)) is not None:
            child.send(number)


def with_last_words(how: str, lines: list[str]) -> str:
    """Add to how a worker ended the last line of its log that was meant for people."""
    words = [line.removeprefix("rbee: ") for line in lines if line.startswith("rbee: ")]
    return f"{how}: {words[-1]}" if words else how
