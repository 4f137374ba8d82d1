"""What the hive's loop does with what the pool decides, where no process is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters import config
from rbee.adapters.config import Settings
from rbee.adapters.store.sqlite import Store
from rbee.errors import BackendUnavailableError, DrainingError, RbeeError, WorkerNotFoundError
from rbee.hive import tables
from rbee.hive.catalogue.catalogue import Catalogue
from rbee.hive.models.library import Library
from rbee.hive.workers import loop
from rbee.hive.workers.loop import Hive
from rbee.hive.workers.plan import available_memory
from rbee.hive.workers.pool import Answer, Follow, Forget, Limits, Spec, Worker
from rbee.hive.workers.processes import LocalMachine
from rbee.wire.hive import SpawnReply, SpawnRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from rbee.adapters.store.write_behind import Work
    from rbee.wire.common import Narration
    from rbee.wire.progress import ProgressEvent

SPEC = Spec("builtin:bee-stories", "/m.gguf", "cpu", 0, "ram", 4, 512, 1)
WORKER = Worker("w", SPEC, "loading", 0.0, url="http://127.0.0.1:9")


def machine(settings: Settings, kind: type[LocalMachine] = LocalMachine) -> LocalMachine:
    async def transact(work: Work) -> None:
        raise AssertionError("no model is asked for here")

    library = Library(settings, Catalogue(settings.paths.models, transact), "token")
    return kind(settings, library, "token", "http://127.0.0.1:9200", "127.0.0.1")


async def test_a_worker_that_is_gone_before_it_is_followed_is_not_followed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    hive = Hive(Limits(), machine(Settings()), store.transact)
    with trio.fail_after(60):
        async with trio.open_nursery() as hive._nursery:
            hive._perform([Follow(WORKER), Forget(WORKER, None)])
    await store.close()


async def test_who_waits_for_a_worker_is_told_of_its_callback(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    hive = Hive(Limits(), machine(Settings()), store.transact)
    told: list[Narration] = []
    start = loop._Start(told.append)
    hive._starts["w"] = [start]
    hive._perform([Answer(WORKER, None)])
    assert [(line.actor, line.action) for line in told] == [("rbee-hive", "ready_callback")]
    assert isinstance(start.result, SpawnReply)
    assert (start.result.url, start.result.state, start.done.is_set()) == (WORKER.url, "loading", True)
    await store.close()


def test_a_worker_reads_the_file_that_its_hive_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rbee.toml").write_text("[timeouts]\ninference = 1000\n")
    monkeypatch.chdir(tmp_path)
    command = machine(config.load(file="rbee.toml")).command(WORKER)
    assert command[command.index("--config") + 1] == str(tmp_path / "rbee.toml")
    assert "--config" not in machine(Settings()).command(WORKER)


def test_a_device_that_has_gone_since_is_an_error_of_ours() -> None:
    with pytest.raises(BackendUnavailableError):
        available_memory(Spec("builtin:bee-stories", "/m.gguf", "vanished", 0, "vram", 4, 512, 1))


class _SlowPlan(LocalMachine):
    """A machine on which it takes a while to look at a model."""

    looking: trio.Event
    looked: trio.Event

    async def plan(self, request: SpawnRequest, report: Callable[[ProgressEvent], None]) -> Spec:
        self.looking.set()
        await self.looked.wait()
        return SPEC


async def test_whoever_asks_a_hive_that_ends_or_has_ended_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    slow = machine(Settings(), _SlowPlan)
    assert isinstance(slow, _SlowPlan)
    slow.looking, slow.looked = trio.Event(), trio.Event()
    hive = Hive(Limits(), slow, store.transact)
    refused: list[RbeeError] = []

    async def spawn() -> None:
        with pytest.raises(DrainingError) as caught:
            await hive.spawn(SpawnRequest(model_ref="builtin:bee-stories"), lambda _: None)
        refused.append(caught.value)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn)
            await slow.looking.wait()
            hive.stop()
            await hive.run()
            slow.looked.set()
        await spawn()
        with pytest.raises(WorkerNotFoundError):
            await hive.end_worker("w")
    assert len(refused) == 2
    await store.close()
