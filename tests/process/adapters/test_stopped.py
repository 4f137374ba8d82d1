"""A daemon that somebody has stopped (SIGSTOP, Ctrl+Z): who waits for it is told so, and it can be ended."""

from __future__ import annotations

import importlib.util
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.daemon import process, stopped
from rbee.errors import ConnectionTimeoutError, StorageError
from tests.kit import paths
from tests.kit.swarm import Keeper, Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="a model's header is read by the engine"
)
SILENT = shlex.join([sys.executable, str(paths.STANDIN_WORKER), "silent"])
BUNDLED = "builtin:bee-stories"
TOLD_SECONDS = 15.0
"""Within which the user gets an error; five of them are for a stopped process to go on."""


@pytest.fixture
def sleeper() -> Iterator[process.Identity]:
    """A process to stop."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    found = process.identify(child.pid)
    assert found is not None
    yield found
    child.kill()
    child.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopped, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(stopped, "CHECK_SECONDS", 0.02)


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "rbee", RBEE_WORKER_COMMAND=SILENT)
    yield found
    found.kill()


def stop(identity: process.Identity) -> None:
    assert process.send_signal(identity, signal.SIGSTOP)
    wait_until(lambda: process.is_stopped(identity), "it is stopped")


# Waiting for a process.


@pytest.mark.usefixtures("impatient")
async def test_a_block_that_waits_for_a_stopped_process_is_given_up(sleeper: process.Identity) -> None:
    stop(sleeper)
    with trio.fail_after(10), pytest.raises(ConnectionTimeoutError) as failure:
        async with stopped.fail_if_sigstopped("hive", sleeper):
            await trio.sleep_forever()
    assert f"the hive (pid {sleeper.pid}) is stopped" in failure.value.message
    assert failure.value.hint == f"`kill -CONT {sleeper.pid}` lets it go on"


@pytest.mark.usefixtures("impatient")
async def test_a_process_that_goes_on_in_time_is_waited_for(sleeper: process.Identity) -> None:
    async with stopped.fail_if_sigstopped("hive", sleeper):
        for _ in range(5):
            stop(sleeper)
            await trio.sleep(0.1)
            process.send_signal(sleeper, signal.SIGCONT)
            await trio.sleep(0.1)
    await stopped.wait_to_go_on("hive", sleeper)


@pytest.mark.usefixtures("impatient")
async def test_what_the_block_raises_is_raised_and_what_it_is_cancelled_by_too(sleeper: process.Identity) -> None:
    stop(sleeper)
    with pytest.raises(StorageError):
        async with stopped.fail_if_sigstopped("hive", sleeper):
            raise StorageError("on purpose")
    with trio.move_on_after(0.1) as scope:
        async with stopped.fail_if_sigstopped("hive", sleeper):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(ConnectionTimeoutError):
        await stopped.wait_to_go_on("hive", sleeper)
    async with stopped.fail_if_sigstopped("hive", None):
        await trio.sleep(0.5)


def test_a_stopped_process_heeds_sigterm(sleeper: process.Identity) -> None:
    assert not process.is_stopped(sleeper)
    stop(sleeper)
    assert process.send_signal(sleeper, signal.SIGTERM)
    wait_until(lambda: not process.is_running(sleeper), "it has ended", 5)
    assert not process.is_stopped(sleeper)


# Daemons.


def told_of(pid: int, command: subprocess.CompletedProcess[str]) -> None:
    assert command.returncode == 1
    assert f"(pid {pid}) is stopped, as by SIGSTOP or Ctrl+Z" in command.stderr
    assert f"hint: `kill -CONT {pid}` lets it go on" in command.stderr


def test_a_stopped_queen_is_named_and_can_be_ended(swarm: Swarm) -> None:
    queen = process.identify(swarm.start_queen().pid)
    assert queen is not None
    stop(queen)
    begun = time.monotonic()
    with ThreadPoolExecutor() as beside_each_other:
        for done in beside_each_other.map(lambda words: swarm.run(*words), (("status",), ("infer", "--prompt", "x"))):
            told_of(queen.pid, done)
    assert time.monotonic() - begun < TOLD_SECONDS
    assert swarm.run("down").returncode == 0
    swarm.end()


@needs_engine
def test_a_stopped_hive_is_named_and_can_be_ended(swarm: Swarm) -> None:
    swarm.start_queen()
    asking = swarm.ask(BUNDLED, 3)
    wait_until(lambda: swarm.find("worker"), "a worker starts")
    hive = swarm.hive()
    assert hive is not None
    stop(hive.identity)
    begun = time.monotonic()
    for client in (asking, swarm.ask("file:/nowhere.gguf", 3)):
        assert client.ended.wait(TOLD_SECONDS), client
        assert f"the hive (pid {hive.identity.pid}) is stopped" in client.said
    assert time.monotonic() - begun < TOLD_SECONDS
    begun = time.monotonic()
    status = swarm.run("status")
    assert f"local: the hive, pid {hive.identity.pid}, is stopped; `kill -CONT " in status.stdout
    assert time.monotonic() - begun < 5
    assert swarm.run("down").returncode == 0
    swarm.end()


@needs_engine
@pytest.mark.parametrize("role", ["queen", "hive"])
def test_a_command_whose_own_daemon_is_stopped_says_so_and_leaves_nothing(swarm: Swarm, role: str) -> None:
    keeper: Keeper = swarm.ask(BUNDLED, 3)
    wait_until(lambda: swarm.find("worker"), "a worker starts")
    found = swarm.find(role)
    assert found is not None
    stop(found)
    begun = time.monotonic()
    assert keeper.ended.wait(TOLD_SECONDS), keeper
    assert keeper.outcome == "error"
    assert f"the {role} (pid {found.pid}) is stopped" in keeper.said
    assert time.monotonic() - begun < TOLD_SECONDS
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)
