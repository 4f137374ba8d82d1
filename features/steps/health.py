"""Steps about the health checks of workers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.seen import Seen


@given("workers are asked for their health every 0.3 seconds, and have 0.5 to answer")
def _health_limits(machine: Machine) -> None:
    machine.env |= {
        "RBEE_TIMEOUTS_HEALTH_INTERVAL": "0.3",
        "RBEE_TIMEOUTS_HEALTH": "0.5",
        "RBEE_TIMEOUTS_UNLOAD": "1",
    }


@then("the worker's health is polled")
def _polled(machine: Machine, seen: Seen) -> None:
    def last() -> float:
        (row,) = machine.workers()
        seen.row = row
        assert row["state"] == "idle"
        return float(row["last_health_at"])

    first = last()
    wait_until(lambda: last() > first, seconds=5)
    second = last()
    wait_until(lambda: last() > second, seconds=5)


@when("the worker hangs")
def _hang(seen: Seen) -> None:
    os.kill(seen.row["pid"], signal.SIGSTOP)


@then("it is listed as unhealthy")
def _unhealthy(machine: Machine, seen: Seen) -> None:
    row = machine.wait_for_worker("unhealthy")
    assert (row["id"], row["slots_available"]) == (seen.row["id"], 0)


@then("after 3 checks it is removed, and its process is gone")
def _removed(machine: Machine, seen: Seen) -> None:
    wait_until(lambda: not machine.workers())
    assert seen.row["pid"] not in machine.processes()


@then("the hive's log says that it did not answer 3 health checks")
def _three_checks(machine: Machine, seen: Seen) -> None:
    failed = [line for line in machine.hive_log() if "did not answer its health check" in line["message"]]
    assert len(failed) == 3
    (error,) = [line["message"] for line in machine.hive_log() if line["level"] == "error"]
    assert "did not answer 3 health checks" in error
    assert str(seen.row["pid"]) in error
