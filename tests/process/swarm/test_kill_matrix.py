"""Whatever is ended, killed or stopped, in whatever state: clients learn what came of it, and nothing is lost or left.

Four victims, three signals, three states: all 36 cases with --full, else 12 in which any two of those still meet. The
swarm is real and stays (`rbee queen`, a hive of its own, workers with the real engine); the clients are a keeper, which
reads from the worker itself, and one whose answer the queen relays.
"""

from __future__ import annotations

import importlib.util
import itertools
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from rbee.adapters.daemon import process
from tests.kit.models import make
from tests.kit.swarm import Client, Keeper, Swarm, said_by
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Cell

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine")

STOPPED_SECONDS = 3.0
"""Less than the limits within which daemons and clients answer each other: nobody need notice."""
CLIENT_SECONDS = 30.0
"""Streams take a few seconds where nothing else wants the processors."""
REGISTRY_SECONDS = 15.0
TOKENS = 300
FEW = 3


class Case(NamedTuple):
    victim: str
    signal: signal.Signals
    state: str

    def __str__(self) -> str:
        return f"{self.victim}-{self.signal.name}-{self.state}"


VICTIMS = ("queen", "hive", "worker", "keeper")
SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP)
STATES = ("idle", "loading", "streaming")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [Case(*case) for case in itertools.product(VICTIMS, SIGNALS, STATES)]
    if not metafunc.config.getoption("--full"):
        # A Latin square: every victim meets every signal and every state, and every signal every state.
        cases = [case for case in cases if STATES.index(case.state) == _square(case)]
    metafunc.parametrize("case", cases, ids=str)


def _square(case: Case) -> int:
    return (VICTIMS.index(case.victim) + SIGNALS.index(case.signal)) % len(STATES)


def expected(case: Case, client: Client) -> str:
    """Return what a client must get."""
    is_relayed = client.name == "relay"
    if case.signal == signal.SIGSTOP:
        return "complete"
    if case.victim == "keeper":
        return "complete" if is_relayed else f"ended by {case.signal.name}"
    if case.signal == signal.SIGTERM:
        # Running requests are waited for. A model that is not loaded yet is given up; then a keeper asks anew, and so
        # does the queen for what it relays, unless it is the one that ends.
        return "error" if (case.victim, case.state) == ("queen", "loading") and is_relayed else "complete"
    # Workers outlive queen and hive, and only what the queen relays goes through it.
    if case.victim == "queen" and is_relayed:
        return "broken"
    return "error" if case.victim == "worker" and case.state == "streaming" else "complete"


class Models(NamedTuple):
    """One that writes for seconds, and one that loads for seconds."""

    long: str
    slow: str


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    long = make(folder / "long.gguf", width=512, layers=8, feed_forward=2048)
    slow = make(folder / "slow.gguf", width=1024, layers=48, feed_forward=3072, quantised=True)
    return Models(f"file:{long}", f"file:{slow}")


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "rbee")
    yield found
    found.kill()


def test_kill_matrix(case: Case, swarm: Swarm, models: Models, cell: Cell) -> None:
    begun = time.monotonic()
    swarm.start_queen()
    clients = bring_to(case, swarm, models)
    name = "infer" if case.victim == "keeper" else case.victim
    victim = wait_until(lambda: swarm.find(name), "the victim runs")  # a keeper may just have been started
    assert is_in(case.state, swarm)
    assert [str(client) for client in clients if client.ended.is_set()] == []

    clients += strike(case, victim, swarm, models)
    settled = settle(swarm, clients, since := time.monotonic())

    following = swarm.ask(models.long, FEW)
    assert following.ended.wait(PATIENCE), following
    wait_until(lambda: not swarm.differences(), "the registry equals reality after the next request", REGISTRY_SECONDS)
    busy = [row for row in swarm.listed() or [] if row["slots_available"] < row["slots_total"]]
    swarm.end(killed=case.victim == "queen" and case.signal == signal.SIGKILL)
    got = {client.name: str(client).partition(": ")[2][:100] for client in clients}
    figures = {
        "keeper got": got.get("keeper", ""),
        "relay got": got.get("relay", ""),
        "next": following.outcome,
        "registry": f"{settled - since:.1f} s",
        "case": f"{time.monotonic() - begun:.1f} s",
    }
    for column, figure in figures.items():
        cell("the kill matrix", str(case), column, figure)
    for client in clients:
        assert client.outcome == expected(case, client), client
    assert following.outcome == "complete", following
    assert busy == [], "who is gone, gives back its slot"
    assert swarm.tracebacks() == []


def bring_to(case: Case, swarm: Swarm, models: Models) -> list[Client]:
    """Return clients that are in the case's state, and the daemons with them.

    Idle daemons have none. An idle keeper has nothing running yet: it waits for its prompt.
    """
    if case.state == "idle":
        warm = swarm.ask(models.long, FEW)
        assert warm.ended.wait(PATIENCE)
        assert warm.outcome == "complete", warm
        wait_until(lambda: is_in("idle", swarm), "the worker is idle")
        return [swarm.ask(models.long, FEW, prompt=None)] if case.victim == "keeper" else []
    is_loading = case.state == "loading"
    asked = (models.slow, FEW) if is_loading else (models.long, TOKENS)
    clients: list[Client] = [swarm.relay(*asked), swarm.ask(*asked)]
    for client in clients:
        wait_until(client.is_placed.is_set if is_loading else lambda client=client: client.text, str(client))
    return clients


def is_in(state: str, swarm: Swarm) -> bool:
    """Tell whether hive and worker agree that the worker is in this state."""
    state = "busy" if state == "streaming" else state
    return [(row["state"], said_by(row)) for row in swarm.listed() or []] == [(state, state)]


def strike(case: Case, victim: process.Identity, swarm: Swarm, models: Models) -> list[Client]:
    """Do to the victim what the case says, and return once that is done; with the client that comes meanwhile."""
    comes: list[Client] = []
    assert process.send_signal(victim, case.signal)
    if case.signal == signal.SIGSTOP:
        if case.state == "idle" and case.victim != "keeper":
            comes = [swarm.ask(models.long, FEW)]
        time.sleep(STOPPED_SECONDS)  # not for an order: this is what happens to it
        assert process.send_signal(victim, signal.SIGCONT)
        if case.state == "idle" and case.victim == "keeper":
            keeper = swarm.clients[-1]
            assert isinstance(keeper, Keeper)
            keeper.ask("A")
    else:
        wait_until(lambda: not process.is_running(victim), "it has ended")
    return comes


def settle(swarm: Swarm, clients: list[Client], since: float) -> float:
    """Return once every client has ended and the registry equals reality, with the time when it first did."""
    first, last = None, since
    while True:
        differences = swarm.differences()
        now = time.monotonic()
        if not differences:
            first, last = first or now, now
        assert now < last + REGISTRY_SECONDS, differences
        late = [str(client) for client in clients if not client.ended.is_set()]
        assert now < since + CLIENT_SECONDS or not late, late
        if first is not None and not differences and not late:
            return first
        time.sleep(0.15)  # the look itself takes the daemons and us a third of that
