"""A node that a firewall hides, or that goes out of reach in the middle of something: two real network namespaces."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit import network
from tests.kit.remote_node import RemoteNode, infer, register, row
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.network import Network

REASON = network.why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
NOTICED = 10
"""Seconds until the keeper has said that the way is cut."""


@pytest.fixture
def net() -> Iterator[Network]:
    found = network.Network()
    yield found
    found.close()


@pytest.fixture
def node(tmp_path: Path, net: Network) -> Iterator[RemoteNode]:
    with net.node():
        found = RemoteNode(tmp_path / "workstation", address=network.THEIRS)
    yield found
    found.close()


@pytest.fixture
def swarm(tmp_path: Path, node: RemoteNode) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "home", RBEE_TIMEOUTS_DRAIN="2", RBEE_TIMEOUTS_CASCADE="8", RBEE_TIMEOUTS_CONNECT="0.5")
    found.start_queen()
    yield found
    found.kill()


def begin(swarm: Swarm, node: RemoteNode) -> subprocess.Popen[str]:
    """Begin `rbee infer`, and return it once it has printed something."""
    keeper = swarm.start("infer", "--node", node.name, "--prompt", "A", "--max-tokens", "50")
    assert keeper.stdout is not None
    assert os.read(keeper.stdout.fileno(), 1)
    return keeper


def ends(keeper: subprocess.Popen[str]) -> tuple[str, float]:
    """Return what it says when it fails, and after how many seconds."""
    began = time.monotonic()
    _, errors = keeper.communicate(timeout=60)
    assert keeper.returncode == 1, errors
    return errors, time.monotonic() - began


@pytest.mark.parametrize("tunnel", ["never", "always"])
def test_a_partition_in_mid_stream_is_noticed_and_the_next_request_works(
    swarm: Swarm, node: RemoteNode, net: Network, tunnel: str
) -> None:
    register(swarm, node, tunnel=tunnel)
    node.stand_in("pause")
    keeper = begin(swarm, node)
    net.part()
    errors, seconds = ends(keeper)
    assert "the stream closed unexpectedly" in errors
    assert "the text so far is in" in errors
    assert seconds < NOTICED
    net.heal()
    hive = node.hive_pid
    keeper = begin(swarm, node)
    keeper.terminate()
    keeper.communicate()
    assert node.hive_pid == hive


def test_a_partition_while_a_worker_starts_is_noticed(swarm: Swarm, node: RemoteNode, net: Network) -> None:
    register(swarm, node)
    node.stand_in("silent")
    keeper = swarm.start("infer", "--node", node.name, "--prompt", "A")
    wait_until(lambda: node.processes("worker"), "the worker starts")
    net.part()
    errors, seconds = ends(keeper)
    assert "the hive was lost while it started the worker" in errors
    assert seconds < NOTICED


def test_a_firewall_is_passed_through_ssh(swarm: Swarm, node: RemoteNode, net: Network) -> None:
    """The next queen knows at once, and says nothing of it."""
    net.block("8000-65534")
    net.admit(node.sshd.port)
    register(swarm, node)
    done = infer(swarm, node)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "10.77.0.2:9200" in line]
    assert told == [
        "[queen-rbee] Attempt 1 of 1: 10.77.0.2:9200 does not answer (timeout; timeout 2 s)",
        "[queen-rbee] 10.77.0.2:9200 cannot be reached; going through SSH",
        f"[queen-rbee] The hive on {node.name} answers at 10.77.0.2:9200",
    ]
    swarm.kill_queen()
    swarm.start_queen()
    warm = infer(swarm, node)
    assert (warm.returncode, warm.stdout) == (0, done.stdout), warm.stderr
    assert "Attempt" not in warm.stderr
    assert "Starting" not in warm.stderr
    swarm.end()
    node.wait_empty(1)


def test_failed_attempts_are_reported(swarm: Swarm, node: RemoteNode, net: Network) -> None:
    net.block("9200")
    register(swarm, node, tunnel="never")
    done = infer(swarm, node)
    assert (done.returncode, done.stdout) == (1, "")
    told = [line for line in done.stderr.splitlines() if "10.77.0.2:9200" in line]
    assert told == [
        "[queen-rbee] Attempt 1 of 3: 10.77.0.2:9200 does not answer (timeout; timeout 0.5 s, again after 200 ms)",
        "[queen-rbee] Attempt 2 of 3: 10.77.0.2:9200 does not answer (timeout; timeout 0.5 s, again after 400 ms)",
        "[queen-rbee] Attempt 3 of 3: 10.77.0.2:9200 does not answer (timeout; timeout 0.5 s)",
        f"rbee: node {node.name}: the hive did not answer at 10.77.0.2:9200 in 3 attempts",
    ]
    assert f"hint: check that the hive runs on {node.name}" in done.stderr
    swarm.end()
    node.wait_empty(1)  # it was ended over SSH


def test_a_queen_ends_in_time_without_a_node_which_stays_ours(swarm: Swarm, node: RemoteNode, net: Network) -> None:
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    net.part()
    began = time.monotonic()
    swarm.stop_queen()
    assert time.monotonic() - began < 12  # drain and cascade are 10 here
    net.heal()
    swarm.start_queen()
    assert row(swarm)["spawned_by_queen"] is True
    swarm.end()
    node.wait_empty(1)
