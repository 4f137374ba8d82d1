"""Steps about daemons: which run, which do not, and how they end."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import httpx
from pytest_bdd import given, parsers, then, when

from tests.kit.local_http import LOCAL
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.seen import Seen


@given("a queen runs")
def _queen_runs(machine: Machine, seen: Seen) -> None:
    seen.queen = machine.start_queen()


@given("a hive that the user started")
def _hive_runs(machine: Machine, seen: Seen) -> None:
    seen.hive = machine.start_hive()


@then(parsers.parse("its list of workers is exactly '{expected}'"))
def _list_is(machine: Machine, expected: str) -> None:
    with machine.hive() as hive:
        assert hive.get("/v1/workers/list").json() == json.loads(expected)


@then("its health is alive with the program's version and API version v1")
def _health(machine: Machine) -> None:
    version = machine.run("--version").stdout.decode().split()[1]
    answer = httpx.get(f"http://127.0.0.1:{machine.hive_port}/v1/health", **LOCAL)
    assert answer.status_code == 200
    health = answer.json()
    assert (health["status"], health["version"], health["api_version"]) == ("alive", version, "v1")


@then("the hive and the worker still run and are listed")
def _daemons_stay(machine: Machine) -> None:
    (row,) = machine.workers()
    assert row["state"] == "idle"
    assert row["pid"] in machine.worker_processes()
    done = machine.run("workers", "list", "--json")
    assert done.returncode == 0
    assert row["id"] in done.stdout.decode()


@then("no process of rbee is left")
def _nothing_left(machine: Machine) -> None:
    assert machine.processes() == {}


@then(parsers.parse("no process of rbee is left within {seconds:d} seconds"))
def _nothing_left_soon(machine: Machine, seconds: int) -> None:
    wait_until(lambda: not machine.processes(), seconds)
    assert machine.processes() == {}


@then("that hive served it and there is no other")
def _that_hive(machine: Machine, seen: Seen) -> None:
    hives = [pid for pid, words in machine.processes().items() if "hive" in words[2:3]]
    assert hives == [seen.hive.pid]
    (row,) = machine.workers()
    seen.worker = row
    assert row["state"] == "idle"


@when("the queen is told to end")
def _end_queen(seen: Seen) -> None:
    seen.queen.send_signal(signal.SIGTERM)
    seen.queen.communicate(timeout=30)
    assert seen.queen.returncode == 0


@then("that hive and its worker live on")
def _hive_lives(machine: Machine, seen: Seen) -> None:
    assert set(machine.daemons()) == {seen.hive.pid, seen.worker["pid"]}
    assert [row["id"] for row in machine.workers()] == [seen.worker["id"]]


@then("nothing was started")
def _nothing_started(machine: Machine) -> None:
    assert machine.processes() == {}
    assert not (machine.state / "logs").exists()
