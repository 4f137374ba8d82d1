"""Steps about several machines at once."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from pytest_bdd import given, then, when

from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.node import Nodes
    from features.lab.seen import Seen

REMOTE = ("attic", "cellar")


def _workers(machine: Machine) -> dict[str, dict[str, Any]]:
    """Return the workers by node, of which each has one."""
    done = machine.run("workers", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["node"]: row for row in json.loads(done.stdout)["workers"]}


@given("workers on local, attic and cellar")
def _swarm(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    machine.start_queen()
    for name in REMOTE:
        node = nodes.add(name)
        node.register(machine)
        node.bring_rbee(machine)
    for name in ("local", *REMOTE):
        done = machine.run("infer", "--node", name, "--prompt", "Once upon a time", "--max-tokens", "2")
        assert done.returncode == 0, done.stderr
    wait_until(lambda: {row["state"] for row in _workers(machine).values()} == {"idle"})
    seen.workers = _workers(machine)
    assert set(seen.workers) == {"local", *REMOTE}


@when("the user lists the workers")
def _list(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("workers", "list")


@then("each of them is listed with its node and its state")
def _listed(seen: Seen) -> None:
    rows = [line.split()[:3] for line in seen.done.stdout.decode().splitlines()[1:]]
    assert rows == [[row["worker_id"][:8], node, "idle"] for node, row in seen.workers.items()]


@when("the user asks for the health of the workers on attic")
def _health(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("workers", "health", "--node", "attic")


@then("stdout names the worker on attic alone, which is ready")
def _healthy(seen: Seen) -> None:
    head, _, _, *rows = seen.done.stdout.decode().splitlines()
    assert head == "attic: hive alive, 1 worker"
    assert [row.split() for row in rows] == [[seen.workers["attic"]["worker_id"][:8], "idle", "yes"]]


@when("the user shuts the worker on attic down")
def _shut_down(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    assert len(nodes["attic"].daemons("worker")) == 1
    seen.done = machine.run("workers", "shutdown", "--id", seen.workers["attic"]["worker_id"])


@then("that worker was told, has unloaded and is gone, and the others live")
def _gone(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    assert nodes["attic"].daemons("worker") == {}
    assert len(nodes["attic"].daemons("hive")) == 1
    assert set(_workers(machine)) == {"local", "cellar"}
    said = machine.run("logs", "--node", "attic").stdout.decode()
    assert "draining" in said
    assert "the worker has ended" in said


@when("the user follows the logs of cellar")
def _follow(machine: Machine, seen: Seen) -> None:
    seen.following = machine.start("logs", "--node", "cellar", "--follow", "--json")


def _until(seen: Seen, source: str, words: str) -> None:
    for line in map(json.loads, seen.following.stdout):
        if line["source"] == source and words in line["message"]:
            return
    raise AssertionError(f"{source} has not said {words}")


@then("lines of its hive and of its worker are shown")
def _lines(seen: Seen) -> None:
    worker = seen.workers["cellar"]["worker_id"]
    _until(seen, "hive", f"worker {worker} started")
    _until(seen, f"worker-{worker}", "loaded")


@then("what happens there meanwhile is shown as it happens")
def _live(machine: Machine, seen: Seen) -> None:
    worker = seen.workers["cellar"]["worker_id"]
    assert machine.run("workers", "shutdown", "--id", worker).returncode == 0
    _until(seen, "hive", f"worker {worker} ended")


@then("Ctrl+C ends it with 130")
def _interrupt(seen: Seen) -> None:
    seen.following.send_signal(signal.SIGINT)
    _, said = seen.following.communicate(timeout=20)
    assert (seen.following.returncode, said) == (130, b"")
