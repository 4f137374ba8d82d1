"""Requests whose worker is told to end before it could serve them: they learn that, or the next one serves them."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.daemon import process
from tests.kit.standins import standin
from tests.kit.swarm import Swarm
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUNDLED = "builtin:bee-stories"


@pytest.fixture
def swarm_of(tmp_path: Path) -> Iterator[Callable[[str], Swarm]]:
    """Make a swarm whose workers behave as they are told."""
    made: list[Swarm] = []

    def make(behaviour: str) -> Swarm:
        command = standin(behaviour)
        made.append(Swarm(tmp_path / "rbee", RBEE_WORKER_COMMAND=command))
        made[-1].start_queen()
        return made[-1]

    yield make
    for swarm in made:
        swarm.kill()


def end(swarm: Swarm, role: str) -> process.Identity:
    found = swarm.find(role)
    assert found is not None
    assert process.send_signal(found, signal.SIGTERM)
    return found


@pytest.mark.parametrize("role", ["hive", "queen"])
def test_a_worker_that_ends_with_its_hive_while_it_loads_has_not_failed(
    swarm_of: Callable[[str], Swarm], role: str
) -> None:
    """It is gone without a word of its own, and so may its hive be when the queen asks; once, it asks anew."""
    swarm = swarm_of("loading")
    client = swarm.relay(BUNDLED, 3)
    wait_until(client.is_placed.is_set, "a worker is named")
    ended = end(swarm, role)

    def is_over_at_last() -> bool:
        nonlocal ended
        if role == "hive" and any(row["state"] == "loading" for row in swarm.listed() or ()):
            time.sleep(0.5)  # a worker that is just being started is taken over by the next hive
            ended = end(swarm, role)
        return client.ended.is_set()

    wait_until(is_over_at_last, "the second try has failed too")
    assert client.outcome == "error"
    assert client.said.startswith("SHUTTING_DOWN: "), client
    wait_until(lambda: not process.is_running(ended), "it has ended")  # by the first signal, not by one more
    swarm.end()


def test_a_keeper_whose_worker_ends_with_its_hive_while_it_loads_asks_anew(swarm_of: Callable[[str], Swarm]) -> None:
    swarm = swarm_of("loading")
    keeper = swarm.ask(BUNDLED, 3)
    wait_until(keeper.is_placed.is_set, "a worker is named")
    worker, hive = swarm.find("worker"), end(swarm, "hive")
    wait_until(lambda: swarm.find("worker") not in (worker, None), "another worker starts")
    assert swarm.find("hive") not in (hive, None)
    assert not keeper.ended.is_set()
    keeper.process.send_signal(signal.SIGINT)
    assert keeper.ended.wait(PATIENCE)
    assert keeper.process.returncode == 130
    swarm.end()


def test_who_waits_for_a_worker_that_starts_when_its_hive_ends_is_taken_by_the_next_hive(
    swarm_of: Callable[[str], Swarm],
) -> None:
    swarm = swarm_of("silent")
    client = swarm.relay(BUNDLED, 3)
    worker = wait_until(lambda: swarm.find("worker"), "a worker starts")
    hive = end(swarm, "hive")
    wait_until(lambda: swarm.find("worker") not in (worker, None), "another worker starts")
    assert swarm.find("hive") not in (hive, None)
    assert not client.ended.is_set()
    queen = end(swarm, "queen")
    assert client.ended.wait(PATIENCE)
    assert client.said == "SHUTTING_DOWN: the queen is shutting down"
    wait_until(lambda: not process.is_running(queen), "it has ended")
    swarm.end()


def end_the_one_that_starts(swarm: Swarm) -> str:
    """End by its id the worker that somebody waits for; returns that."""
    wait_until(swarm.listed, "a worker starts")
    (row,) = swarm.listed() or ()
    assert swarm.run("workers", "shutdown", "--id", row["id"]).returncode == 0
    return str(row["id"])


def test_who_waits_for_a_worker_that_is_ended_by_id_before_it_is_ready_is_told(
    swarm_of: Callable[[str], Swarm],
) -> None:
    swarm = swarm_of("silent")
    client = swarm.relay(BUNDLED, 3)
    end_the_one_that_starts(swarm)
    assert client.ended.wait(PATIENCE)
    assert client.said == "SHUTTING_DOWN: the worker was told to end before it was ready"
    swarm.end()


def test_a_keeper_whose_worker_is_ended_by_id_before_it_is_ready_asks_anew(swarm_of: Callable[[str], Swarm]) -> None:
    """At once: it does not wait for the end of a queen that goes on."""
    swarm = swarm_of("silent")
    keeper = swarm.ask(BUNDLED, 3)
    ended = end_the_one_that_starts(swarm)
    wait_until(lambda: any(row["id"] != ended for row in swarm.listed() or ()), "another one starts")
    assert not keeper.ended.is_set()
    keeper.process.send_signal(signal.SIGINT)
    assert keeper.ended.wait(PATIENCE)
    assert keeper.process.returncode == 130
    swarm.end()
