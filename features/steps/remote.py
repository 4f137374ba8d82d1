"""Steps about hives and workers on other machines: which run there, who started them, and how they are reached."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pytest_bdd import given, then, when

from features.lab import earlier
from features.lab.node import HIVE_PORT
from features.steps.nodes import NAME
from tests.kit.local_http import LOCAL
from tests.kit.ports import own_address
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.lab.machine import Machine
    from features.lab.node import Node, Nodes
    from features.lab.seen import Seen


@pytest.fixture
def users() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The hives that users of other machines started; they end them, too."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for hive in started:
        hive.send_signal(signal.SIGTERM)
        hive.wait(30)


def _start_hive(node: Node, host: str) -> subprocess.Popen[bytes]:
    """Start the hive of this installation, as a user of that machine does, and wait until it answers."""
    folder = node.install
    hive = subprocess.Popen(
        [str(folder / "bin" / "rbee"), "hive", "--host", host, "--config", str(folder / "config.toml")],
        env={"HOME": str(node.home), "PATH": node.path, "RBEE_CACHE": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: _answers(host))
    return hive


def _answers(host: str) -> bool:
    try:
        return httpx.get(f"http://{host}:{HIVE_PORT}/v1/health", **LOCAL).status_code == 200
    except httpx.TransportError:
        return False


def _running(node: Node) -> tuple[list[int], list[int]]:
    """Return the pids of the node's hives and workers."""
    found = node.processes()
    workers = [pid for pid, words in found.items() if "--hive-url" in words]
    return [pid for pid, words in found.items() if "hive" in words and pid not in workers], workers


@given("the registered node workstation, which is never reached through SSH")
def _never(machine: Machine, nodes: Nodes) -> None:
    nodes.add(NAME).register(machine, "--tunnel", "never")


@given("the program there is of an earlier version")
def _earlier(nodes: Nodes) -> None:
    program = nodes[NAME].install / "bin" / "rbee"
    program.unlink()
    program.write_bytes(Path(earlier.__file__).read_bytes())
    program.chmod(0o755)


@given("a hive there that listens at another address")
def _elsewhere(nodes: Nodes, users: list[subprocess.Popen[bytes]]) -> None:
    users.append(_start_hive(nodes[NAME], own_address()))


@given("a hive that a user started there")
def _users(nodes: Nodes, users: list[subprocess.Popen[bytes]]) -> None:
    users.append(_start_hive(nodes[NAME], nodes[NAME].address))


@when("the user runs infer there again")
def _again(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    seen.running = _running(nodes[NAME])
    began = time.monotonic()
    seen.done = machine.run("infer", "--node", NAME, "--prompt", "Once upon a time")
    seen.took = time.monotonic() - began


@then("that took less than 5 seconds")
def _quick(seen: Seen) -> None:
    assert seen.took < 5


@then("nothing was checked, fetched or started for it")
def _warm(seen: Seen) -> None:
    told = seen.done.stderr.decode()
    assert f"runs on {NAME} already (idle)" in told
    for word in ("Connecting", "Starting", "free RAM", "Downloading"):
        assert word not in told


@then("workstation has one hive and one worker, those from before")
def _those(nodes: Nodes, seen: Seen) -> None:
    hives, workers = _running(nodes[NAME])
    assert (hives, workers) == seen.running
    assert len(hives) == len(workers) == 1


@then("stderr shows both versions on lines of their own")
def _versions(machine: Machine, seen: Seen) -> None:
    version = machine.run("--version").stdout.decode().split()[1]
    lines = [line.strip() for line in seen.done.stderr.decode().splitlines()]
    assert f"queen-rbee {version}" in lines
    assert f"rbee-hive {earlier.VERSION}" in lines


@then("stderr shows 3 attempts with address, timeout and delay")
def _attempts(nodes: Nodes, seen: Seen) -> None:
    address = f"{nodes[NAME].address}:{HIVE_PORT}"
    told = [line for line in seen.done.stderr.decode().splitlines() if address in line]
    said = f"{address} does not answer (connection refused; timeout 10 s"
    assert told == [
        f"[queen-rbee] Attempt 1 of 3: {said}, again after 200 ms)",
        f"[queen-rbee] Attempt 2 of 3: {said}, again after 400 ms)",
        f"[queen-rbee] Attempt 3 of 3: {said})",
        f"rbee: node {NAME}: the hive did not answer at {address} in 3 attempts",
    ]


@then("hive and worker run on workstation, and are listed")
def _listed(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    with nodes[NAME].hive(machine) as hive:

        def idle() -> list[dict[str, Any]]:
            found = hive.get("/v1/workers/list").json()["workers"]
            return found if [row["state"] for row in found] == ["idle"] else []

        (row,) = wait_until(idle, "the hive has heard that the worker is idle")
    hives, workers = seen.running = _running(nodes[NAME])
    assert (len(hives), workers) == (1, [row["pid"]])
    done = machine.run("workers", "list", "--json")
    assert done.returncode == 0
    assert row["id"] in done.stdout.decode()


@then("that hive and its worker live on there")
def _live_on(nodes: Nodes, seen: Seen) -> None:
    assert _running(nodes[NAME]) == seen.running
    assert nodes[NAME].has_hive()
