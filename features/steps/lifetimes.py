"""Steps about how long workers and hives live, and what is true of them meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
from pytest_bdd import given, parsers, then, when

from tests.kit.local_http import LOCAL
from tests.kit.models import make as make_chain
from tests.kit.stopwatch import Stopwatch
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from features.lab.machine import Machine
    from features.lab.seen import Seen

BUNDLED = "builtin:bee-stories"


@given(
    parsers.re(
        r"workers may be idle for (?P<idle>\d+) seconds?"
        r"(?:, and are asked for their health every (?P<every>[\d.]+))?"
    )
)
def _idle_limit(machine: Machine, idle: str, every: str | None) -> None:
    machine.env["RBEE_TIMEOUTS_IDLE"] = idle
    if every is not None:
        machine.env["RBEE_TIMEOUTS_HEALTH_INTERVAL"] = every


def _spawn(machine: Machine, model: str = BUNDLED) -> dict[str, Any]:
    with machine.hive() as hive:
        answer = hive.post("/v1/workers/spawn", json={"model_ref": model})
    assert answer.status_code == 200, answer.text
    spawned: dict[str, Any] = answer.json()
    return spawned


def _wait_idle(machine: Machine, count: int) -> list[dict[str, Any]]:
    wait_until(lambda: [row["state"] for row in machine.workers()] == ["idle"] * count)
    return machine.workers()


@given("1 worker that is idle")
def _one_idle(machine: Machine, seen: Seen) -> None:
    _spawn(machine)
    (seen.row,) = seen.rows = _wait_idle(machine, 1)


@given("2 workers that are idle")
def _two_idle(machine: Machine, seen: Seen) -> None:
    _spawn(machine)
    _spawn(machine)
    seen.rows = _wait_idle(machine, 2)


@given("3 workers with models of their own")
def _three_models(machine: Machine, tmp_path: Path, seen: Seen) -> None:
    for name in ("one", "two", "three"):
        _spawn(machine, f"file:{make_chain(tmp_path / f'{name}.gguf')}")
    seen.rows = _wait_idle(machine, 3)
    assert len({row["model_ref"] for row in seen.rows}) == 3


def _table(machine: Machine) -> list[dict[str, Any]]:
    """Return the rows of the hive's table of workers."""
    with closing(sqlite3.connect(f"file:{machine.state / 'models.db'}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM workers")]


@then("its entry has id, url, model, backend and device, state loading, and 0 of 3 slots available")
def _entry(machine: Machine, seen: Seen) -> None:
    (row,) = machine.workers()
    seen.row = row
    spawned = seen.spawned
    assert (row["id"], row["url"]) == (spawned["worker_id"], spawned["url"])
    assert (row["model_ref"], row["backend"], row["device"]) == (seen.model, "cpu", 0)
    assert (row["state"], row["slots_total"], row["slots_available"]) == ("loading", 3, 0)


@then("the table of the hive holds the same")
def _stored(machine: Machine, seen: Seen) -> None:
    def found() -> dict[str, Any] | None:
        return next((row for row in _table(machine) if row["url"]), None)

    row = wait_until(found)
    for name in ("id", "url", "model_ref", "backend", "device", "slots_total", "pid"):
        assert row[name] == seen.row[name]


@when("the hive and the first worker are killed")
def _kill(machine: Machine, seen: Seen) -> None:
    seen.hive.kill()
    seen.hive.wait()
    first = seen.rows[0]["pid"]
    assert set(machine.daemons()) == {row["pid"] for row in seen.rows}
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: first not in machine.processes())


@when("a hive is started again")
def _start_again(machine: Machine, seen: Seen) -> None:
    seen.hive = machine.start_hive()


@then("its list and its table hold the other worker only, idle, with the same process")
def _only_survivor(machine: Machine, seen: Seen) -> None:
    survivor = seen.rows[1]
    assert [row["id"] for row in machine.workers()] == [survivor["id"]], "from the first answer on"
    row = machine.wait_for_worker("idle")
    for name in ("id", "url", "pid", "model_ref", "slots_total"):
        assert row[name] == survivor[name]
    assert [row["id"] for row in _table(machine)] == [survivor["id"]]
    assert set(machine.worker_processes()) == {survivor["pid"]}


def _worker_log(machine: Machine, worker_id: str) -> list[dict[str, Any]]:
    text = (machine.state / "logs" / f"worker-{worker_id}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _ended_by_itself(machine: Machine, row: dict[str, Any]) -> datetime:
    """Check that a worker was told to end by its shutdown call, and did; returns when it was told."""
    said = _worker_log(machine, row["id"])
    messages = [line["message"] for line in said]
    assert not [message for message in messages if "SIGTERM" in message], "nobody had to send a signal"
    assert messages[-1] == "the worker has ended"
    (end,) = [line["message"] for line in machine.hive_log() if f"worker {row['id']} ended: " in line["message"]]
    assert end.endswith("exit code 0")
    draining = next(line for line in said if line["message"].startswith("draining"))
    return datetime.fromisoformat(draining["time"])


@then("the worker is told to shut down, unloads its model and is gone")
def _idle_end(machine: Machine, seen: Seen) -> None:
    row = seen.row
    wait_until(lambda: not machine.workers())
    assert row["pid"] not in machine.processes()
    assert wait_until(lambda: _table(machine) == [])
    _ended_by_itself(machine, row)


@then("a second worker can be started")
def _second(machine: Machine, seen: Seen) -> None:
    spawned = _spawn(machine)
    assert spawned["worker_id"] != seen.row["id"]


@then("both are ended for being idle")
def _both_end(machine: Machine) -> None:
    wait_until(lambda: not machine.workers())
    assert machine.worker_processes() == {}


@then("the hive still answers, and is the same process")
def _same_hive(machine: Machine, seen: Seen) -> None:
    health = httpx.get(f"http://127.0.0.1:{machine.hive_port}/v1/health", **LOCAL)
    assert health.json()["status"] == "alive"
    assert set(machine.daemons()) == {seen.hive.pid}
    assert seen.hive.poll() is None


@then("queen and hive live on")
def _daemons_live(machine: Machine, seen: Seen) -> None:
    assert {words[2] for words in machine.daemons().values()} == {"queen", "hive"}
    health = httpx.get(f"http://127.0.0.1:{machine.hive_port}/v1/health", **LOCAL)
    assert health.json()["status"] == "alive"
    assert seen.queen.poll() is None


@when("the hive is told to end")
def _end_hive(machine: Machine, seen: Seen) -> None:
    watch = Stopwatch(*machine.processes())
    seen.hive.send_signal(signal.SIGTERM)
    seen.took = watch.until(lambda: seen.hive.poll() is not None)
    _, seen.stderr = seen.hive.communicate()


@then("all 3 workers were told within a second, and ended by themselves")
def _all_told(machine: Machine, seen: Seen) -> None:
    told = [_ended_by_itself(machine, row) for row in seen.rows]
    assert len(told) == 3
    assert (max(told) - min(told)).total_seconds() < 1


@then("it took at most 2 seconds, and no worker was killed")
def _at_once(machine: Machine, seen: Seen) -> None:
    assert seen.took < 2
    messages = [line["message"] for line in machine.hive_log()]
    assert any("ended: exit code 0" in message for message in messages)


@then("the hive ends with 0 and leaves no process")
def _hive_ended(machine: Machine, seen: Seen) -> None:
    assert seen.hive.returncode == 0
    begun, ending = seen.stderr.decode().splitlines()
    assert begun.startswith("The hive answers at ")
    assert ending.startswith("Ending the workers")
    assert machine.processes() == {}


@then("the table of the hive is still there, and empty")
def _table_stays(machine: Machine) -> None:
    assert _table(machine) == []
