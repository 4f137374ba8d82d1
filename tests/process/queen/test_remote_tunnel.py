"""Nodes whose ports only the queen reaches, through SSH: for the user everything is as it is elsewhere."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.kit import models
from tests.kit.hub import Hub
from tests.kit.remote_node import RemoteNode, infer, register
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RemoteNode]:
    found = RemoteNode(tmp_path / "workstation")
    yield found
    found.close()


@pytest.fixture
def swarm(tmp_path: Path, node: RemoteNode) -> Iterator[Swarm]:
    """A queen that reaches the node through SSH alone."""
    found = Swarm(tmp_path / "home", RBEE_TIMEOUTS_DRAIN="2", RBEE_TIMEOUTS_CASCADE="8")
    found.start_queen()
    register(found, node, tunnel="always")
    yield found
    found.kill()


def begin(swarm: Swarm, node: RemoteNode, *more: str) -> subprocess.Popen[str]:
    """Begin `rbee infer`, and return it once it has printed something."""
    keeper = swarm.start("infer", "--node", node.name, "--prompt", "A", "--max-tokens", "50", *more)
    assert keeper.stdout is not None
    assert os.read(keeper.stdout.fileno(), 1)
    return keeper


def sessions(node: RemoteNode) -> list[psutil.Process]:
    """Return the processes of sshd that serve the connections to the node."""
    return psutil.Process(node.sshd.pid).children(recursive=False)


def test_a_cold_start_and_a_warm_one(swarm: Swarm, node: RemoteNode) -> None:
    cold = infer(swarm, node)
    assert (cold.returncode, len(cold.stdout) > 5) == (0, True), cold.stderr
    for words in ("The hive on workstation answers", "Loaded the model", "Generated"):
        assert words in cold.stderr
    warm = infer(swarm, node, "--json")
    assert warm.returncode == 0, warm.stderr
    found = json.loads(warm.stdout)
    assert (found["text"], found["node"], found["total_tokens"]) == (cold.stdout[:-1], node.name, 4)
    assert "Starting" not in warm.stderr
    assert len(node.processes("worker")) == 1
    swarm.end()
    node.wait_empty(1)


def test_the_queens_own_host_copies_a_model_through_ssh(tmp_path: Path, node: RemoteNode) -> None:
    model = models.make(tmp_path / "model.Q4_K_M.gguf")
    with Hub() as hub:
        hub.add("bees/model", model)
        settings = {"HF_ENDPOINT": hub.url, "RBEE_HUB_PRIVATE_REDIRECTS": "true"}
        node.install_program(
            f"import os; os.environ.update({settings | {'RBEE_PATHS_MODELS_DIR': str(tmp_path / 'theirs')}})"
        )
        swarm = Swarm(tmp_path / "home", RBEE_PATHS_MODELS_DIR=str(tmp_path / "ours"), **settings)
        try:
            swarm.start_queen()
            register(swarm, node, tunnel="always")
            for name, words in ((node.name, "Downloading"), ("local", f"from {node.name}")):
                done = swarm.run("models", "pull", "hf:bees/model", "--node", name)
                assert (done.returncode, words in done.stderr) == (0, True), done.stderr
            assert hub.sent == model.stat().st_size
            swarm.end()
        finally:
            swarm.kill()


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("crash", ["the stream closed unexpectedly", "with 3 of 4 tokens", "the text so far is in", "exit code 1"]),
        ("cut", ["the stream closed unexpectedly", "with 3 of 4 tokens", "the text so far is in"]),
        ("busy", ["retrying in 0.1 s", "all slots of the worker are still busy after 2 retries"]),
        ("loading", ["3 of 8 layers", "worker-", "in the folder of logs on workstation"]),
        ("exit", ["the device is on fire"]),
    ],
)
def test_failures_through_the_tunnel_read_as_elsewhere(
    swarm: Swarm, node: RemoteNode, behaviour: str, words: list[str]
) -> None:
    swarm.env |= {"RBEE_TIMEOUTS_BUSY_DELAYS": "0.1 0.1"}
    node.configure(timeouts={"loading": 1.0})
    node.stand_in(behaviour)
    done = infer(swarm, node, "--wait", "0")
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr


def test_ctrl_c_stops_the_generation(swarm: Swarm, node: RemoteNode) -> None:
    node.stand_in("pause")
    keeper = begin(swarm, node)
    keeper.send_signal(signal.SIGINT)
    _, errors = keeper.communicate(timeout=10)
    assert (keeper.returncode, errors.splitlines()[-1]) == (130, "Cancelled.")
    wait_until(lambda: [worker["state"] for worker in swarm.workers()] == ["idle"], "the slot is free", 1)


def test_a_queen_that_is_killed_in_mid_stream(swarm: Swarm, node: RemoteNode) -> None:
    node.stand_in("pause")
    keeper = begin(swarm, node)
    swarm.kill_queen()
    _, errors = keeper.communicate(timeout=20)
    assert keeper.returncode == 1
    assert "the stream closed unexpectedly" in errors
    swarm.start_queen()


def test_an_ssh_connection_that_is_cut_in_mid_stream(swarm: Swarm, node: RemoteNode) -> None:
    node.stand_in("pause")
    keeper = begin(swarm, node)
    for session in sessions(node):
        session.kill()
    began = time.monotonic()
    _, errors = keeper.communicate(timeout=20)
    assert (keeper.returncode, time.monotonic() - began < 10) == (1, True)
    assert "the stream closed unexpectedly" in errors
    hive = node.hive_pid
    keeper = begin(swarm, node)
    assert node.hive_pid == hive
    keeper.send_signal(signal.SIGINT)
    keeper.communicate(timeout=10)


def test_many_requests_at_once(swarm: Swarm, node: RemoteNode) -> None:
    node.configure(worker={"slots": 16})
    assert infer(swarm, node).returncode == 0
    done: list[subprocess.CompletedProcess[str]] = []
    clients = [threading.Thread(target=lambda: done.append(infer(swarm, node))) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [one.returncode for one in done] == [0] * 6, [one.stderr for one in done]
    assert len({one.stdout for one in done}) == 1
