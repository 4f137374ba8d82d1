"""Callers of a hive's workers, the loop and its effects, on a machine without processes."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from rbee.adapters.config import Timeouts
from rbee.adapters.daemon.process import Identity
from rbee.adapters.store.write_behind import WriteBehind
from rbee.errors import DrainingError, OutOfMemoryError, WorkerNotFoundError
from rbee.hive.tables import MIGRATIONS
from rbee.hive.workers import rows
from rbee.hive.workers.effects import Delete, Follow
from rbee.hive.workers.execution import Execution
from rbee.hive.workers.pool import Pool
from rbee.hive.workers.record import REST_SECONDS, WorkerRecord
from rbee.hive.workers.rows import LastKnownWorker
from rbee.hive.workers.supervisor import ACCEPT_SECONDS, BUSY_SECONDS, WorkerSupervisor
from rbee.wire.common import Narration
from rbee.wire.hive import ReadyCallback, SpawnReply, SpawnRequest
from rbee.wire.worker import WorkerStatus
from tests.kit.standin_machine import SPEC, StandInMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio.testing import MockClock

    from rbee.wire.progress import ProgressEvent

URL = "http://127.0.0.1:9"
REQUEST = SpawnRequest(model_ref="builtin:bee-stories")


class Registry:
    """The hive's tables, in memory: threads and the mock clock do not mix."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def transact(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        with self._connection:
            return work(self._connection)

    def ids(self) -> list[str]:
        return [known.id for known in rows.last_known(self._connection)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for script in MIGRATIONS:
            connection.executescript(script)
        yield Registry(connection)


@pytest.fixture
def machine() -> StandInMachine:
    return StandInMachine()


@pytest.fixture
def workers(machine: StandInMachine, registry: Registry) -> WorkerSupervisor:
    return WorkerSupervisor(Timeouts(), machine, registry.transact)


def callback(worker_id: str) -> ReadyCallback:
    return ReadyCallback(worker_id=worker_id, url=URL, model_ref="builtin:bee-stories", backend="cpu", device=0)


async def launched(machine: StandInMachine) -> str:
    """Return the id of the one worker that is started."""
    await trio.testing.wait_all_tasks_blocked()
    (worker_id,) = machine.launched
    return worker_id


async def test_callers_of_a_start_get_the_callback_and_the_reply(
    workers: WorkerSupervisor, machine: StandInMachine, registry: Registry, autojump_clock: MockClock
) -> None:
    reports: list[list[ProgressEvent]] = [[], []]
    replies: list[SpawnReply] = []

    async def spawn(events: list[ProgressEvent], *, reuse: bool) -> None:
        request = SpawnRequest(model_ref="builtin:bee-stories", reuse=reuse)
        replies.append(await workers.spawn(request, events.append))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(lambda: spawn(reports[0], reuse=False))
            worker_id = await launched(machine)
            nursery.start_soon(lambda: spawn(reports[1], reuse=True))
            await trio.testing.wait_all_tasks_blocked()
            assert workers.held() == {"starts": {worker_id}, "execution": {worker_id}}
            assert replies == []
            await workers.called_back(callback(worker_id))
            await trio.testing.wait_all_tasks_blocked()
            assert replies == 2 * [
                SpawnReply(worker_id=worker_id, url=URL, state="loading", api_key=f"key of {worker_id}")
            ]
            for events, actions in zip(reports, (["start", "ready_callback"], ["ready_callback"]), strict=True):
                lines = [event for event in events if isinstance(event, Narration)]
                assert [(line.actor, line.action) for line in lines] == [("rbee-hive", action) for action in actions]
            assert workers.held() == {"starts": set(), "execution": {worker_id}}
            assert registry.ids() == [worker_id]
            workers.stop()
    assert workers.is_over
    assert workers.held() == {"starts": set(), "execution": set()}
    assert registry.ids() == []


async def test_a_worker_whose_files_were_replaced_ends_and_its_successor_waits_for_its_memory(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    reuse = SpawnRequest(model_ref="builtin:bee-stories", reuse=True)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(workers.watch_files)
            nursery.start_soon(workers.spawn, reuse, lambda _: None)
            first = await launched(machine)
            await workers.called_back(callback(first))
            await trio.testing.wait_all_tasks_blocked()
            machine.on_status[first](WorkerStatus(state="idle", slots_total=4, slots_available=4))
            await workers.check_files()
            assert [row.state for row in workers.view().workers] == ["idle"]
            machine.accepts_end = False
            machine.replaced.add(first)
            nursery.start_soon(workers.spawn, reuse, lambda _: None)
            await trio.testing.wait_all_tasks_blocked()
            assert [row.state for row in workers.view().workers] == ["draining"]
            assert set(machine.launched) == {first}, "the old one still has the memory"
            machine.launched[first].ended.set()
            await trio.testing.wait_all_tasks_blocked()
            (second,) = {*machine.launched} - {first}
            assert [row.id for row in workers.view().workers] == [second]
            await workers.called_back(callback(second))
            machine.replaced.add(second)
            await trio.sleep(Timeouts().health_interval + 1)
            assert [row.state for row in workers.view().workers] == ["draining"], "without a request too"
            nursery.cancel_scope.cancel()


async def test_the_longest_idle_worker_makes_room_for_another_model(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    """There is memory for one; the first that is asked has a request that its hive does not know of yet."""
    told: list[str] = []

    def report(event: ProgressEvent) -> None:
        if isinstance(event, Narration) and event.action in ("make_room", "wait"):
            told.append(event.human)

    idle = WorkerStatus(state="idle", slots_total=4, slots_available=4)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(workers.spawn, SpawnRequest(model_ref="file:/old.gguf"), report)
            first = await launched(machine)
            await workers.called_back(callback(first))
            await trio.testing.wait_all_tasks_blocked()
            machine.on_status[first](idle)
            machine.free = 0
            machine.with_requests.add(first)
            nursery.start_soon(workers.spawn, SpawnRequest(model_ref="file:/new.gguf"), report)
            await trio.sleep(REST_SECONDS - 1)
            assert told == ["Waiting for room: file:/old.gguf in use"], "a request may be on its way to it"
            await trio.sleep(2)
            assert told[1:] == ["file:/old.gguf makes room for file:/new.gguf: idle for 3 s, 0 MB"]
            assert [row.state for row in workers.view().workers] == ["idle"], "it has a request, and stays"
            machine.with_requests.clear()
            await trio.sleep(REST_SECONDS)
            assert machine.launched[first].ended.is_set()
            (second,) = {*machine.launched} - {first}
            (worker,) = workers.pool.workers.values()
            assert (worker.id, worker.ports_from) == (second, 10), "who comes to the old port finds nobody else"
            nursery.cancel_scope.cancel()


async def test_a_model_that_finds_no_room_is_refused_with_numbers_and_nobody_has_left(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(workers.spawn, SpawnRequest(model_ref="file:/old.gguf"), lambda _: None)
            first = await launched(machine)
            await workers.called_back(callback(first))
            await trio.testing.wait_all_tasks_blocked()
            machine.on_status[first](WorkerStatus(state="busy", slots_total=4, slots_available=3))
            machine.free = -1
            began = trio.current_time()
            with pytest.raises(OutOfMemoryError, match="needs 1 MB of RAM, and 0 MB are available"):
                await workers.spawn(SpawnRequest(model_ref="file:/never.gguf"), lambda _: None)
            assert trio.current_time() == began, "nothing that ends would help"
            machine.free = 0
            with pytest.raises(OutOfMemoryError, match="beside workers that take 0 MB and have requests"):
                await workers.spawn(SpawnRequest(model_ref="file:/later.gguf"), lambda _: None)
            assert trio.current_time() >= began + BUSY_SECONDS
            assert [row.id for row in workers.view().workers] == [first]
            nursery.cancel_scope.cancel()


async def test_of_two_models_that_wait_for_the_same_room_the_second_waits_for_the_first(
    machine: StandInMachine, registry: Registry, autojump_clock: MockClock
) -> None:
    """There is memory for one worker. Whoever comes second finds the room taken by one that loads."""
    workers = WorkerSupervisor(Timeouts(), machine, registry.transact, max_memory=SPEC.memory)
    idle = WorkerStatus(state="idle", slots_total=4, slots_available=4)
    replies: list[SpawnReply] = []

    async def spawn(model: str) -> None:
        replies.append(await workers.spawn(SpawnRequest(model_ref=model), lambda _: None))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            for model in ("file:/old.gguf", "file:/b.gguf", "file:/c.gguf"):
                nursery.start_soon(spawn, model)
            seen: set[str] = set()
            for count in range(3):
                await trio.sleep(REST_SECONDS + 1)
                (worker_id,) = {*machine.launched} - seen
                seen.add(worker_id)
                await workers.called_back(callback(worker_id))
                await trio.testing.wait_all_tasks_blocked()
                assert [reply.worker_id for reply in replies][count:] == [worker_id]
                machine.on_status[worker_id](idle)
            nursery.cancel_scope.cancel()


async def test_a_disk_that_says_nonsense_ends_no_worker_and_no_request(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(workers.spawn, REQUEST, lambda _: None)
            worker_id = await launched(machine)
            machine.failing.add(worker_id)
            await workers.check_files()
            assert [row.state for row in workers.view().workers] == ["loading"]
            nursery.cancel_scope.cancel()


async def test_a_worker_that_is_gone_before_it_is_followed_is_not_followed(
    machine: StandInMachine, registry: Registry, autojump_clock: MockClock
) -> None:
    worker = WorkerRecord("w", SPEC, "loading", 0.0, url=URL)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            execution = Execution(
                nursery, Pool(Timeouts()), machine, WriteBehind(registry.transact), lambda decision: None
            )
            execution.perform([Follow(worker), Delete(worker, None)])
            assert execution.worker_ids == set()
    assert machine.is_followed == set()


async def test_a_followed_worker_is_followed_until_it_is_gone(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(workers.spawn, REQUEST, lambda _: None)
            worker_id = await launched(machine)
            await workers.called_back(callback(worker_id))
            await trio.testing.wait_all_tasks_blocked()
            assert machine.is_followed == {worker_id}
            changed = workers.changed.next
            machine.launched[worker_id].ended.set()
            await changed.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert machine.is_followed == set()
            (ended,) = workers.view().ended
            assert (ended.id, ended.reason) == (worker_id, "exit code 0")
            workers.stop()


async def test_calls_to_a_stopping_hive_are_refused_as_draining(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    machine.may_plan = trio.Event()
    refused: list[DrainingError] = []

    async def spawn() -> None:
        with pytest.raises(DrainingError) as caught:
            await workers.spawn(REQUEST, lambda _: None)
        refused.append(caught.value)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn)
            await machine.planning.wait()
            workers.stop()
            await workers.run()
            await trio.testing.wait_all_tasks_blocked()
            assert len(refused) == 1, "a start that is still planned is refused before its connection is cut"
        machine.may_plan.set()
        await spawn()
        with pytest.raises(WorkerNotFoundError):
            await workers.end_worker("w")
    assert len(refused) == 2
    assert machine.launched == {}


async def test_a_caller_waits_for_a_workers_acceptance_no_longer_than_a_short_call_may_take(
    workers: WorkerSupervisor, machine: StandInMachine, autojump_clock: MockClock
) -> None:
    machine.accepts_end, machine.is_stubborn = False, True
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            nursery.start_soon(workers.spawn, REQUEST, lambda _: None)
            worker_id = await launched(machine)
            await workers.called_back(callback(worker_id))
            begun = trio.current_time()
            await workers.end_worker(worker_id)
            assert trio.current_time() - begun == pytest.approx(ACCEPT_SECONDS)
            assert [row.state for row in workers.view().workers] == ["draining"]
            await machine.launched[worker_id].ended.wait()
            assert trio.current_time() - begun == pytest.approx(Timeouts().unload)
            assert machine.launched[worker_id].signals == [signal.SIGKILL]
            nursery.cancel_scope.cancel()


async def test_a_worker_adopted_before_it_called_back_is_ended(
    workers: WorkerSupervisor, machine: StandInMachine, registry: Registry, autojump_clock: MockClock
) -> None:
    identity = Identity(17, 18, "boot")
    workers.adopt(LastKnownWorker("w", None, SPEC, identity))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            await trio.testing.wait_all_tasks_blocked()
            assert machine.adopted_ones[17].signals == [signal.SIGTERM]
            assert workers.view().workers == []
            workers.stop()
