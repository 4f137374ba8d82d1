"""What a daemon that was killed leaves behind: the next one takes it over, or it ends by itself."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters.daemon import instance, process
from rbee.adapters.daemon.instance import InstanceLock
from tests.kit.models import make
from tests.kit.ports import hold_port
from tests.kit.standins import standin
from tests.kit.swarm import Swarm, processes_of, stored_workers
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine")

BUNDLED = "builtin:bee-stories"
SPAWN = "/v1/workers/spawn"
ADOPTION_SECONDS = 5.0


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "rbee")
    yield found
    found.kill()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that loads for some seconds."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    return f"file:{make(path, width=1024, layers=64, feed_forward=3072, quantised=True)}"


def kill(identity: process.Identity) -> None:
    assert process.send_signal(identity, signal.SIGKILL)
    wait_until(lambda: not process.is_running(identity), "it is gone")


# A queen.


def test_a_hive_whose_queen_was_killed_before_it_was_ready_ends(swarm: Swarm) -> None:
    swarm.home.mkdir()
    (swarm.home / "token").write_text("rbee_of_a_test")
    hive = subprocess.Popen(
        [*swarm.program, "hive", "--announce", "--started-by", "queen"],
        cwd=swarm.cwd,
        env=swarm.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert hive.stdout is not None
    hive.stdout.close()
    assert hive.wait(PATIENCE) == 0
    assert not swarm.processes()
    assert instance.find_uncleanly_ended(swarm.home, "hive") is None
    assert "gone before it was ready" in (swarm.home / "logs" / "hive.log").read_text()


def test_the_next_queen_finds_what_a_killed_one_had_and_ends_it(swarm: Swarm) -> None:
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    worker, hive = swarm.find("worker"), swarm.find("hive")
    queen = swarm.find("queen")
    assert queen is not None
    kill(queen)
    assert swarm.run("up").returncode == 0
    listed = json.loads(swarm.run("workers", "list", "--json").stdout)["workers"]
    assert [row["state"] for row in listed] == ["idle"]
    again = swarm.ask(BUNDLED, 3)
    assert again.ended.wait(PATIENCE)
    assert "Starting" not in again.errors
    assert (swarm.find("worker"), swarm.find("hive")) == (worker, hive)
    assert swarm.run("down").returncode == 0
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


def test_a_queen_that_was_never_asked_ends_the_hive_of_a_killed_one_too(swarm: Swarm) -> None:
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    queen = swarm.find("queen")
    assert queen is not None
    kill(queen)
    assert swarm.run("up").returncode == 0
    assert swarm.run("down").returncode == 0
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


def test_a_request_waits_for_a_hive_that_has_the_place_and_does_not_answer_yet(swarm: Swarm) -> None:
    """As one that a killed queen had started a moment before."""
    swarm.start_queen()
    starting = InstanceLock(swarm.home, "hive")
    keeper = swarm.ask(BUNDLED, 3)
    wait_until(lambda: "A hive starts or ends there already" in keeper.errors, "the hive is waited for")
    assert not keeper.ended.is_set()
    os.close(starting._descriptor)
    assert keeper.ended.wait(PATIENCE)
    assert keeper.process.returncode == 0, keeper
    swarm.end()


def test_down_ends_the_hive_of_a_killed_queen_without_another_queen(swarm: Swarm) -> None:
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    queen, hive = swarm.find("queen"), swarm.find("hive")
    assert queen is not None
    assert hive is not None
    kill(queen)
    down = swarm.run("down")
    assert down.returncode == 0
    assert f"The hive (pid {hive.pid}) that an earlier queen had left has ended, with its workers.\n" in down.stderr
    assert swarm.processes() == []
    assert swarm.run("down").stderr == "No queen is running.\n"


@pytest.mark.parametrize("has_queen", [True, False], ids=["queen", "no queen"])
def test_down_ends_the_workers_of_a_hive_that_was_killed(swarm: Swarm, has_queen: bool) -> None:
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    hive, queen, worker = swarm.find("hive"), swarm.find("queen"), swarm.find("worker")
    assert hive is not None
    assert queen is not None
    assert worker is not None
    if not has_queen:
        kill(queen)
    kill(hive)
    down = swarm.run("down")
    assert down.returncode == 0, down.stderr
    if not has_queen:
        killed = f"What the queen (pid {queen.pid}) and the hive (pid {hive.pid}) left when killed has ended.\n"
        assert killed in down.stderr
    assert swarm.processes() == []
    assert swarm.run("down").stderr == "No queen is running.\n"


def test_the_workers_of_a_hive_that_had_to_be_killed_end_too(swarm: Swarm) -> None:
    """It is stopped again and again, so that it does not get to end them itself."""
    swarm.env |= {"RBEE_TIMEOUTS_DRAIN": "1", "RBEE_TIMEOUTS_CASCADE": "5"}
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    hive = swarm.find("hive")
    assert hive is not None

    def hold() -> None:
        while process.send_signal(hive, signal.SIGSTOP):
            time.sleep(0.0005)

    holding = threading.Thread(target=hold)
    holding.start()
    down = swarm.run("down")
    holding.join()
    assert f"the hive (pid {hive.pid}) had not ended 6 s after it was told to, and was killed" in down.stderr
    assert swarm.processes() == []


def test_why_a_worker_had_to_be_killed_goes_from_the_hive_by_the_queen_to_the_user(swarm: Swarm) -> None:
    swarm.env |= {"RBEE_WORKER_COMMAND": standin("stubborn"), "RBEE_TIMEOUTS_UNLOAD": "1"}
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    queen, hive, worker = swarm.find("queen"), swarm.find("hive"), swarm.find("worker")
    assert queen is not None
    assert hive is not None
    assert worker is not None
    down = swarm.run("down")
    words = f"the worker (pid {worker.pid}) had not ended 1 s after it was told to, and was killed"
    assert down.returncode == 1
    assert f"rbee: {words}\nhint: their logs: " in down.stderr
    for role, identity in (("queen", queen), ("hive", hive)):
        report = instance.exit_report_of(swarm.home, role, identity)
        assert report is not None
        assert (report.code, report.message, report.unfinished) == ("UNLOAD_FAILED", words, ())
    assert swarm.processes() == []
    again = swarm.run("down")
    assert (again.returncode, again.stderr) == (
        0,
        f"No queen is running.\nWhat the queen (pid {queen.pid}) left has ended.\n",
    )


def test_down_ends_what_a_queen_has_left_that_is_killed_while_it_ends(swarm: Swarm) -> None:
    """It waits for its hive, which is stopped again and again."""
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    queen, hive = swarm.find("queen"), swarm.find("hive")
    assert queen is not None
    assert hive is not None

    def hold() -> None:
        while process.is_running(queen):
            process.send_signal(hive, signal.SIGSTOP)
            time.sleep(0.0005)

    holding = threading.Thread(target=hold)
    holding.start()
    down = swarm.start("down")
    wait_until(lambda: "ending the hive" in (swarm.home / "logs" / "queen.log").read_text(), "the queen ends its hive")
    kill(queen)
    holding.join()
    _, errors = down.communicate(timeout=PATIENCE)
    assert down.returncode == 0, errors
    assert f"The queen (pid {queen.pid}) was killed before it had ended.\n" in errors
    assert f"The hive (pid {hive.pid}) that an earlier queen had left has ended, with its workers.\n" in errors
    assert swarm.processes() == []


def test_registries_that_are_damaged_are_told_of(swarm: Swarm) -> None:
    swarm.home.mkdir(parents=True, exist_ok=True)
    for name in ("beehives.db", "models.db"):
        (swarm.home / name).write_bytes(b"spoilt" * 1000)
    infer = swarm.run("infer", "--prompt", "Once", "--max-tokens", "1")
    assert infer.returncode == 0, infer.stderr
    for name in ("beehives.db", "models.db"):
        assert f"{name} is damaged (file is not a database): it is now {name}.damaged" in infer.stderr


def test_a_queen_whose_folder_was_deleted_is_named(swarm: Swarm) -> None:
    swarm.start_queen()
    queen = swarm.find("queen")
    assert queen is not None
    shutil.rmtree(swarm.home)
    assert f"If that folder was deleted, `kill {queen.pid}` ends the queen" in swarm.run("down").stderr
    assert process.send_signal(queen, signal.SIGTERM)
    wait_until(lambda: not process.is_running(queen), "it is gone", 5)


def test_the_hive_of_a_user_is_not_started_anew_to_end_its_workers(swarm: Swarm) -> None:
    hive = swarm.start("hive")
    wait_until(lambda: instance.find(swarm.home, "hive"), "the hive answers")  # or the queen starts another one
    swarm.start_queen()
    assert swarm.ask(BUNDLED, 3).ended.wait(PATIENCE)
    worker = swarm.find("worker")
    hive.kill()
    hive.communicate()
    assert swarm.run("down").returncode == 0
    assert swarm.find("worker") == worker
    assert swarm.find("hive") is None


# A hive.


def listed(hive: Any) -> list[dict[str, Any]]:
    with hive.client() as client:
        found: list[dict[str, Any]] = client.get("/v1/workers/list").json()["workers"]
    return found


def test_a_worker_that_loads_when_its_hive_is_killed_is_adopted_and_goes_on(daemons: Any, slow: str) -> None:
    first = daemons.start("hive")
    with first.client() as client:
        reply = client.post(SPAWN, json={"model_ref": slow}).json()
    (row,) = listed(first)
    assert row["state"] == "loading"
    os.kill(row["pid"], signal.SIGSTOP)  # or it has loaded before Python has started on a busy machine
    wait_until(lambda: [one["url"] for one in stored_workers(daemons.home)] == [row["url"]], "it is stored")
    first.process.kill()
    first.wait()
    log = daemons.home / "logs" / "hive.log"
    before = log.stat().st_size

    def go_on() -> None:
        wait_until(lambda: log.stat().st_size > before, "the next hive has begun")
        os.kill(row["pid"], signal.SIGCONT)

    going_on = threading.Thread(target=go_on)
    going_on.start()
    begun = time.monotonic()
    second = daemons.start("hive")
    (adopted,) = listed(second)
    assert time.monotonic() - begun < ADOPTION_SECONDS
    going_on.join()
    for field in ("id", "url", "model_ref", "backend", "device", "pid", "state"):
        assert adopted[field] == row[field]
    wait_until(lambda: [found["state"] for found in listed(second)] == ["idle"], "the model is loaded")
    assert listed(second)[0]["id"] == reply["worker_id"]
    second.signal()
    assert second.wait() == (0, "")
    assert daemons.left() == []


def test_a_worker_that_starts_when_its_hive_is_killed_ends_by_itself(daemons: Any, tmp_path: Path) -> None:
    hive = daemons.start("hive")
    with subprocess.Popen(spawning(hive, tmp_path)) as asking:
        wait_until(lambda: "worker" in [one.role for one in processes_of(daemons.home)], "a worker starts")
        hive.process.kill()
        hive.wait()
        asking.wait()
    wait_until(lambda: daemons.left() == [], "the worker has ended", ADOPTION_SECONDS)


@pytest.mark.parametrize("prefix", ["", "env --ignore-signal=TERM "], ids=["willing", "stubborn"])
def test_a_worker_that_starts_when_its_hive_is_killed_is_ended_by_the_next(
    daemons: Any, tmp_path: Path, prefix: str
) -> None:
    """It never calls back; the stubborn one ignores SIGTERM too."""
    options = {
        "RBEE_WORKER_COMMAND": f"{prefix}{standin('silent')}",
        "RBEE_TIMEOUTS_UNLOAD": "1",
        "RBEE_HIVE_PORT": str(hold_port()),
    }
    first = daemons.start("hive", **options)
    with subprocess.Popen(spawning(first, tmp_path)) as asking:
        wait_until(lambda: [row["pid"] for row in listed(first) if row["pid"]], "its process is known")
        (row,) = listed(first)
        wait_until(lambda: stored_workers(daemons.home), "it is stored")
        first.process.kill()
        first.wait()
        asking.wait()
    second = daemons.start("hive", **options)
    wait_until(lambda: listed(second) == [], "the worker is gone", ADOPTION_SECONDS)
    assert process.identify(row["pid"]) is None
    wait_until(lambda: not stored_workers(daemons.home), "its row is gone")
    with second.client() as client:
        assert client.get("/v1/health").status_code == 200
    second.signal()
    assert second.wait() == (0, "")


@pytest.mark.parametrize("changed", [{"started_at": 1}, {"boot_id": "another"}])
def test_a_process_that_has_a_dead_workers_pid_is_never_signalled(daemons: Any, changed: dict[str, object]) -> None:
    first = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    with first.client() as client:
        assert client.post(SPAWN, json={"model_ref": BUNDLED}).status_code == 200
    wait_until(lambda: [row["state"] for row in listed(first)] == ["idle"], "the worker is idle")
    (row,) = listed(first)
    first.process.kill()
    first.wait()
    os.kill(row["pid"], signal.SIGKILL)
    # Everything ends this one, and nothing of ours may try.
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as stranger:
        try:
            mine = process.identify(stranger.pid)
            assert mine is not None
            values = {"pid": mine.pid, "started_at": mine.started_at, "boot_id": mine.boot_id} | changed
            connection = sqlite3.connect(daemons.home / "models.db")
            with connection:
                connection.execute(
                    "UPDATE workers SET pid = :pid, started_at = :started_at, boot_id = :boot_id", values
                )
            connection.close()
            second = daemons.start("hive", RBEE_TIMEOUTS_HEALTH_INTERVAL="0.1")
            assert listed(second) == []
            second.signal()
            assert second.wait() == (0, "")
            assert stored_workers(daemons.home) == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


def spawning(hive: Any, folder: Path) -> list[str]:
    """Return a command that asks the hive for a worker, and is done when the hive is gone."""
    script = folder / "spawn.py"
    script.write_text(
        "import sys, urllib.request\n"
        "request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {'Authorization': sys.argv[3]})\n"
        "try:\n    urllib.request.urlopen(request)\nexcept OSError:\n    pass\n"
    )
    body = json.dumps({"model_ref": BUNDLED})
    return [sys.executable, str(script), f"{hive.url}{SPAWN}", body, f"Bearer {hive.token}"]
