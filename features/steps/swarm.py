"""Steps about several machines at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_bdd import given, then, when

from features.lab.machine import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.node import Nodes

REMOTE = ("attic", "cellar")


def _workers(machine: Machine) -> dict[str, dict[str, Any]]:
    """Return the workers by node, of which each has one."""
    done = machine.run("workers", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["node"]: row for row in json.loads(done.stdout)["workers"]}


@given("workers on local, attic and cellar")
def _swarm(machine: Machine, nodes: Nodes, seen: dict[str, Any]) -> None:
    machine.start_queen()
    for name in REMOTE:
        node = nodes.add(name)
        node.register(machine)
        node.bring_rbee(machine)
    for name in ("local", *REMOTE):
        done = machine.run("infer", "--node", name, "--prompt", "Once upon a time", "--max-tokens", "2")
        assert done.returncode == 0, done.stderr
    wait_until(lambda: {row["state"] for row in _workers(machine).values()} == {"idle"})
    seen["workers"] = _workers(machine)
    assert set(seen["workers"]) == {"local", *REMOTE}


@when("the user shuts the worker on attic down")
def _shut_down(machine: Machine, nodes: Nodes, seen: dict[str, Any]) -> None:
    assert len(nodes["attic"].daemons("worker")) == 1
    seen["done"] = machine.run("workers", "shutdown", "--id", seen["workers"]["attic"]["worker_id"])


@then("that worker was told, has unloaded and is gone, and the others live")
def _gone(machine: Machine, nodes: Nodes, seen: dict[str, Any]) -> None:
    assert nodes["attic"].daemons("worker") == {}
    assert len(nodes["attic"].daemons("hive")) == 1
    assert set(_workers(machine)) == {"local", "cellar"}
    said = machine.run("logs", "--node", "attic").stdout.decode()
    assert "draining" in said
    assert "the worker has ended" in said
