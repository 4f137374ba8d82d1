"""The whole swarm at a glance: all nodes are asked at once, and one that is dead is named and costs 2 s."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rbee import __version__
from rbee.adapters import tokens
from tests.conftest import ROOT
from tests.process.remote_nodes import register, some_address, start_hive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(__file__).with_name("standin_worker.py")
SPAWN = {"model_ref": "builtin:bee-stories"}
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
SILENT = {
    "no hive answers on node cellar",
    "the hive on cellar did not answer within 2 s",
    "no answer within 2 s",
}
"""Whichever of several limits of 2 s is over first."""
DEAD_COSTS = 2.0
SLACK = 2.0
"""Seconds that a command itself may take on a busy machine."""


def standin(behaviour: str = "well") -> str:
    return shlex.join([sys.executable, str(PROGRAM), behaviour])


@contextmanager
def black_hole(address: str) -> Iterator[None]:
    """Have a machine at `address` that takes connections, as a stopped one does, and says nothing."""
    with socket.socket() as listener:
        listener.bind((address, 9200))
        listener.listen()
        yield


class Swarm:
    """A queen with `local`, `attic` (a hive that runs) and `cellar` (none)."""

    def __init__(self, daemons: Any, behaviour: str = "well") -> None:
        address = some_address()
        self.dead_address = some_address()
        register(daemons.home, ("attic", address), ("cellar", self.dead_address))
        tokens.load_or_create(daemons.home / "token")
        self.local = daemons.start("hive", RBEE_WORKER_COMMAND=standin(behaviour))
        self.attic = start_hive(daemons, "attic", address, RBEE_WORKER_COMMAND=standin(behaviour))
        self.queen = daemons.start("queen")

    def spawn(self, hive: Any) -> str:
        with self.queen.client() as client:
            worker: str = client.post(f"{hive.url}/v1/workers/spawn", json=SPAWN).json()["worker_id"]
        return worker

    def run(self, *arguments: str) -> tuple[int, str, str]:
        environment = os.environ | {"RBEE_HOME": str(self.queen.home), "RBEE_QUEEN_PORT": "0"}
        command = [sys.executable, "-m", "rbee", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=50
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def swarm(daemons: Any) -> Swarm:
    return Swarm(daemons)


def test_workers_of_all_nodes_are_listed_and_the_silent_node_is_named(
    swarm: Swarm, eventually: Callable[..., None]
) -> None:
    here, there = swarm.spawn(swarm.local), swarm.spawn(swarm.attic)

    def listed() -> dict[str, Any]:
        with swarm.queen.client() as client:
            found: dict[str, Any] = client.get("/v2/workers/list").json()
            return found

    eventually(lambda: [worker["state"] for worker in listed()["workers"]] == ["idle", "idle"])
    found = listed()
    assert [(worker["worker_id"], worker["node"]) for worker in found["workers"]] == [(here, "local"), (there, "attic")]
    gone = {"node": "cellar", "status": "unreachable", "reason": "no hive answers on node cellar"}
    assert found["unreachable"] == [gone]
    code, out, _ = swarm.run("workers", "list")
    assert code == 0
    assert here in out
    assert there in out
    assert "cellar is unreachable: no hive answers on node cellar" in out
    code, out, _ = swarm.run("workers", "health", "--json")
    health = {node["node"]: (node["status"], node["workers"]) for node in json.loads(out)["nodes"]}
    assert health == {
        "local": ("alive", [{"worker_id": here, "state": "idle", "ready": True}]),
        "attic": ("alive", [{"worker_id": there, "state": "idle", "ready": True}]),
        "cellar": ("unreachable", []),
    }
    assert swarm.run("workers", "health", "--node", "attic")[1].splitlines()[0] == "attic: hive alive, 1 worker"
    code, out, err = swarm.run("workers", "health", "--node", "nowhere")
    assert (code, out) == (1, "")
    assert "node nowhere is not in the registry" in err


def test_the_status_has_the_nodes_side_by_side(swarm: Swarm) -> None:
    worker = swarm.spawn(swarm.attic)
    with black_hole(swarm.dead_address):
        begun = time.monotonic()
        code, out, _ = swarm.run("status", "--json")
        assert time.monotonic() - begun < DEAD_COSTS + SLACK
        assert code == 0
        found = json.loads(out)
        local, attic, cellar = found["nodes"]
        assert (local["status"], local["version"], local["workers"]) == ("alive", __version__, 0)
        assert (attic["status"], attic["workers"], attic["slots_total"]) == ("alive", 1, 4)
        assert 0 < attic["memory_available"] < attic["memory_total"]
        assert (cellar["status"], cellar["version"], cellar["memory_total"]) == ("unreachable", None, None)
        assert cellar["reason"] in SILENT
        assert [row["worker_id"] for row in found["workers"]] == [worker]
        code, out, _ = swarm.run("status")
        assert code == 0
        assert max(map(len, out.splitlines())) <= 80
        heading, *rows = [line.split() for line in out.split("\n\n")[1].splitlines()]
        assert heading == ["NODE", "HIVE", "WORKERS", "FREE", "SLOTS", "FREE", "MEMORY"]
        assert [row[:3] for row in rows] == [
            ["local", __version__, "0"],
            ["attic", __version__, "1"],
            ["cellar", "none", "answers"],
        ]
        assert worker[:8] in out
        assert "\ncellar: unreachable: " in out


def test_a_worker_is_ended_wherever_it_is(swarm: Swarm) -> None:
    here, there = swarm.spawn(swarm.local), swarm.spawn(swarm.attic)
    with swarm.queen.client() as client:
        answer = client.post("/v2/workers/shutdown", json={"worker_id": UUID})
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert error["code"] == "WORKER_NOT_FOUND"
        both = [{"worker_id": here, "node": "local"}, {"worker_id": there, "node": "attic"}]
        assert error["details"] == {"workers": both, "unreachable": ["cellar"]}
        assert f"{there} on attic" in error["hint"]
        assert "not known are those of cellar" in error["hint"]
    code, out, err = swarm.run("workers", "shutdown", "--id", there)
    assert (code, out) == (0, f"Worker {there} on attic has ended.\n")
    assert err == f"[queen-rbee] Worker {there} on attic is ending\n"
    with swarm.queen.client() as client:
        assert [row["worker_id"] for row in client.get("/v2/workers/list").json()["workers"]] == [here]
    code, out, _ = swarm.run("workers", "shutdown", "--id", here[:8], "--json")
    assert (code, json.loads(out)["worker_id"], json.loads(out)["node"]) == (0, here, "local")
    for known in (here, here[:4], "nonsense"):
        code, out, err = swarm.run("workers", "shutdown", "--id", known)
        assert (code, out) == (1, "")
        assert err.startswith("rbee: there is no worker of this id\nhint: no worker runs")


def test_the_answer_comes_once_the_worker_has_accepted(swarm: Swarm) -> None:
    """A worker says in its own log that it was told."""
    worker = swarm.spawn(swarm.attic)
    with swarm.queen.client() as client:
        answer = client.post("/v2/workers/shutdown", json={"worker_id": worker}).json()
    message = f"worker {worker} on attic is ending"
    assert answer == {"success": True, "message": message, "worker_id": worker, "node": "attic"}
    assert "POST /v1/admin/shutdown" in (swarm.attic.home / "logs" / f"worker-{worker}.log").read_text()


def test_a_worker_that_has_to_be_killed_is_told_so(daemons: Any) -> None:
    os.environ["RBEE_TIMEOUTS_ACKNOWLEDGE"] = os.environ["RBEE_TIMEOUTS_UNLOAD"] = "0.5"
    try:
        swarm = Swarm(daemons, "stubborn")
    finally:
        del os.environ["RBEE_TIMEOUTS_ACKNOWLEDGE"], os.environ["RBEE_TIMEOUTS_UNLOAD"]
    worker = swarm.spawn(swarm.local)
    code, out, err = swarm.run("workers", "shutdown", "--id", worker)
    assert (code, out) == (1, "")
    assert f"rbee: worker {worker} on local has ended: the worker (pid " in err
    assert "was killed" in err


def test_a_hive_that_is_stopped_is_named_in_time(swarm: Swarm) -> None:
    swarm.local.signal(signal.SIGSTOP)
    swarm.attic.signal(signal.SIGSTOP)
    begun = time.monotonic()
    code, out, _ = swarm.run("workers", "list", "--json")
    assert time.monotonic() - begun < DEAD_COSTS + SLACK
    assert code == 0
    reasons = {node["node"]: node["reason"] for node in json.loads(out)["unreachable"]}
    assert set(reasons) == {"local", "attic", "cellar"}
    assert f"the hive (pid {swarm.local.process.pid}) is stopped" in reasons["local"]
