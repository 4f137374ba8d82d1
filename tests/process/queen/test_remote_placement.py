"""The queen chooses a node where the user has named none."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from rbee.queen.hives.follower import VALID_SECONDS
from tests.kit.remote_node import TEXT, RemoteNode, infer, register
from tests.kit.standins import standin
from tests.kit.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RemoteNode]:
    found = RemoteNode(tmp_path / "workstation")
    yield found
    found.close()


@pytest.fixture
def swarm(tmp_path: Path, node: RemoteNode) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "home", RBEE_TIMEOUTS_DRAIN="2", RBEE_TIMEOUTS_CASCADE="8")
    found.start_queen()
    register(found, node)
    yield found
    found.kill()


def chosen(swarm: Swarm, *more: str) -> list[str]:
    """Run `rbee infer` without --node; returns the lines that say which node was chosen, and why."""
    done = swarm.run("infer", *TEXT, *more)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if " nodes: " in line or "cannot take" in line]


def test_a_warm_worker_elsewhere_is_used_and_else_the_own_host(swarm: Swarm, node: RemoteNode) -> None:
    (cold,) = chosen(swarm)
    assert cold.startswith("[queen-rbee] Choosing local of 2 nodes: ")
    assert "GB of memory are free there" in cold
    assert infer(swarm, node).returncode == 0
    (worker,) = (one for one in swarm.workers() if one["node"] == "local")
    swarm.end_worker(worker["worker_id"])
    assert chosen(swarm) == [
        "[queen-rbee] Choosing workstation of 2 nodes: a worker with builtin:bee-stories is idle there"
    ]
    assert [one["node"] for one in swarm.workers()] == ["workstation"]


def test_a_node_that_has_died_is_passed_over(swarm: Swarm, node: RemoteNode) -> None:
    assert infer(swarm, node).returncode == 0
    assert "workstation" in chosen(swarm)[0]
    time.sleep(2 * VALID_SECONDS)  # so long is the last answer of the hive good for that it is there
    node.sshd.stop()
    node.signal_hive(signal.SIGSTOP)
    began = time.monotonic()
    with swarm.client() as queen, queen.stream("POST", "/v2/tasks", json={"prompt": "A"}, headers=STREAM) as events:
        first = next(line for line in events.iter_lines() if line.startswith("data: "))
        assert time.monotonic() - began < 3  # two seconds for the node
    assert "Choosing local of 2 nodes" in first
    node.signal_hive(signal.SIGKILL)
    node.sshd.start()


def test_a_node_that_has_died_is_an_error_where_it_is_named(swarm: Swarm, node: RemoteNode) -> None:
    """Its event stream would show that half a minute later, and so long the queen would name a worker there."""
    assert infer(swarm, node).returncode == 0
    time.sleep(2 * VALID_SECONDS)
    node.sshd.stop()
    node.signal_hive(signal.SIGSTOP)
    began = time.monotonic()
    done = infer(swarm, node)
    assert time.monotonic() - began < 15  # two seconds twice for the node, and what the keeper takes
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert f"node {node.name}: SSH to " in done.stderr
    node.signal_hive(signal.SIGCONT)
    node.sshd.start()
    time.sleep(2 * VALID_SECONDS)
    assert infer(swarm, node).returncode == 0


def test_a_node_that_cannot_be_reached_leaves_the_request_to_the_next(swarm: Swarm, node: RemoteNode) -> None:
    """Where the own host's slots are taken, another hive would be started."""
    swarm.stop_queen()
    swarm.env |= {
        "RBEE_WORKER_COMMAND": standin("busy"),
        "RBEE_TIMEOUTS_BUSY_DELAYS": "",
    }
    swarm.start_queen()
    node.sshd.stop()
    assert swarm.run("infer", "--node", "local", "--wait", "0", *TEXT).returncode == 1
    done = swarm.run("infer", "--wait", "0", *TEXT)
    assert "all slots of the worker are still busy" in done.stderr
    first, _, failed, second, *_ = done.stderr.splitlines()
    assert first == "[queen-rbee] Choosing workstation of 2 nodes: its hive can be started"
    assert failed.startswith("[queen-rbee] workstation cannot take the request: SSH to ")
    assert second.endswith("Choosing local of 2 nodes: no other node can take it, and its workers are busy")
    node.sshd.start()


def test_who_waits_here_is_served_by_a_worker_that_another_node_has_got_meanwhile(
    swarm: Swarm, node: RemoteNode
) -> None:
    swarm.stop_queen()
    swarm.env |= {"RBEE_WORKER_COMMAND": standin("busy"), "RBEE_TIMEOUTS_BUSY_DELAYS": ""}
    swarm.start_queen()
    assert swarm.run("infer", "--node", "local", "--wait", "0", *TEXT).returncode == 1
    node.sshd.stop()
    task = {"prompt": "A", "max_tokens": 3, "wait_s": 600, "relay": True}
    with swarm.client() as queen, queen.stream("POST", "/v2/tasks", json=task, headers=STREAM, timeout=60) as events:
        lines = events.iter_lines()
        next(line for line in lines if "Waiting for a slot, next in line" in line)
        node.sshd.start()
        done = infer(swarm, node)
        assert done.returncode == 0, done.stderr
        rest = "\n".join(lines)
    assert "has a free slot on workstation" in rest
    assert '"node":"workstation"' in rest
    assert '"done":true' in rest
