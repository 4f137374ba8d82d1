"""The whole swarm at a glance: all nodes are asked at once, and one that is dead is named and costs 2 s."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx_sse
import pytest

from rbee import __version__
from rbee.adapters import tokens
from tests.conftest import ROOT
from tests.kit.hub import Fault, Hub
from tests.kit.ports import own_address
from tests.kit.remote_nodes import register, start_hive
from tests.kit.standins import standin
from tests.kit.stopwatch import Stopwatch
from tests.kit.streams import events_of, until
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPAWN = {"model_ref": "builtin:bee-stories"}
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
SILENT = {
    "what listens at {address}:9200 does not answer",
    "the hive on cellar did not answer within 2 s",
    "no answer within 2 s",
}
"""Whichever of several limits of 2 s is over first."""
DEAD_COSTS = 2.0
SLACK = 2.0
"""Seconds that a command itself may take on a busy machine."""


@contextmanager
def black_hole(address: str) -> Iterator[None]:
    """Have a machine at `address` that takes connections, as a stopped one does, and says nothing."""
    with socket.socket() as listener:
        listener.bind((address, 9200))
        listener.listen()
        yield


class Swarm:
    """A queen with `local`, `attic` (a hive that runs) and `cellar` (none)."""

    def __init__(self, daemons: Any, behaviour: str = "well", **environment: str) -> None:
        address = own_address()
        self.dead_address = own_address()
        register(daemons.home, ("attic", address), ("cellar", self.dead_address))
        tokens.load_or_create(daemons.home / "token")
        environment["RBEE_WORKER_COMMAND"] = standin(behaviour)
        self.local = daemons.start("hive", **environment)
        self.attic = start_hive(daemons, "attic", address, **environment)
        self.queen = daemons.start("queen")

    def spawn(self, hive: Any) -> str:
        with self.queen.client() as client:
            worker: str = client.post(f"{hive.url}/v1/workers/spawn", json=SPAWN).json()["worker_id"]
        return worker

    def start(
        self, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen[bytes]:
        own = {"RBEE_HOME": str(self.queen.home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"}
        return subprocess.Popen(
            [sys.executable, "-m", "rbee", *arguments],
            cwd=ROOT,
            env=os.environ | own | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def timed(self, *arguments: str) -> tuple[str, float]:
        """Run a command that succeeds; returns what it prints, and after how many seconds."""
        with self.start(*arguments) as process:
            seconds = Stopwatch(process.pid, self.queen.process.pid).until(lambda: process.poll() is not None)
            out, err = process.communicate()
        assert process.returncode == 0, err
        return out.decode(), seconds

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=50)
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def swarm(daemons: Any) -> Swarm:
    return Swarm(daemons)


def test_workers_of_all_nodes_are_listed_and_the_silent_node_is_named(swarm: Swarm) -> None:
    here, there = swarm.spawn(swarm.local), swarm.spawn(swarm.attic)

    def listed() -> dict[str, Any]:
        with swarm.queen.client() as client:
            found: dict[str, Any] = client.get("/v2/workers/list").json()
            return found

    wait_until(lambda: [worker["state"] for worker in listed()["workers"]] == ["idle", "idle"])
    found = listed()
    assert [(worker["worker_id"], worker["node"]) for worker in found["workers"]] == [(here, "local"), (there, "attic")]
    (gone,) = found["unreachable"]
    assert (gone["node"], gone["status"], gone["state"]) == ("cellar", "unreachable", "not started")
    not_needed = f"no hive runs there (nothing listens at {swarm.dead_address}:9200); the first request starts it"
    assert gone["reason"] == not_needed
    code, out, _ = swarm.run("workers", "list")
    assert code == 0
    assert here[:8] in out
    assert there[:8] in out
    assert f"cellar is not started: {not_needed}" in out
    assert f"cellar: {not_needed}" in swarm.run("models", "list")[2].splitlines()
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
    assert "did you mean" not in err
    code, _, err = swarm.run("workers", "health", "--node", "atic")
    assert (code, "did you mean attic?" in err) == (1, True), err


def test_the_status_has_the_nodes_side_by_side(swarm: Swarm) -> None:
    worker = swarm.spawn(swarm.attic)
    with black_hole(swarm.dead_address):
        out, seconds = swarm.timed("status", "--json")
        assert seconds < DEAD_COSTS + SLACK
        found = json.loads(out)
        local, attic, cellar = found["nodes"]
        assert (local["status"], local["version"], local["workers"]) == ("alive", __version__, 0)
        assert (attic["status"], attic["workers"], attic["slots_total"]) == ("alive", 1, 4)
        assert 0 < attic["memory_available"] < attic["memory_total"]
        assert (cellar["status"], cellar["version"], cellar["memory_total"]) == ("unreachable", None, None)
        assert cellar["reason"] in {words.format(address=swarm.dead_address) for words in SILENT}
        assert cellar["state"] == "unreachable"
        assert [row["worker_id"] for row in found["workers"]] == [worker]
        code, out, _ = swarm.run("status")
        assert code == 0
        assert max(map(len, out.splitlines())) <= 80
        heading, *rows = [line.split() for line in out.split("\n\n")[1].splitlines()]
        assert heading == ["NODE", "HIVE", "WORKERS", "FREE", "SLOTS", "FREE", "MEMORY"]
        assert [row[:3] for row in rows] == [
            ["local", __version__, "0"],
            ["attic", __version__, "1"],
            ["cellar", "unreachable", "–"],
        ]
        assert worker[:8] in out
        assert "\ncellar: " in out


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
    assert err == f"Worker {there} on attic is ending\n"
    with swarm.queen.client() as client:
        assert [row["worker_id"] for row in client.get("/v2/workers/list").json()["workers"]] == [here]
    code, out, _ = swarm.run("workers", "shutdown", "--id", here[:8], "--json")
    assert (code, json.loads(out)["worker_id"], json.loads(out)["node"]) == (0, here, "local")
    unknown, short = "there is no worker of this id", "the id is too short: give a worker's first 8 characters, or more"
    for known in (here, "01234567"):
        code, out, err = swarm.run("workers", "shutdown", "--id", known)
        assert (code, out) == (1, "")
        assert err.startswith(f"rbee: {unknown}\nhint: no worker runs")
    with swarm.queen.client() as client:
        for known, message in ((here[:4], short), ("nonsense", unknown)):
            error = client.post("/v2/workers/shutdown", json={"worker_id": known}).json()["error"]
            assert error["message"] == message
            assert error["hint"].startswith("no worker runs")


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
    out, seconds = swarm.timed("workers", "list", "--json")
    assert seconds < DEAD_COSTS + SLACK
    reasons = {node["node"]: node["reason"] for node in json.loads(out)["unreachable"]}
    assert set(reasons) == {"local", "attic", "cellar"}
    assert f"the hive (pid {swarm.local.process.pid}) is stopped" in reasons["local"]


def test_what_happens_in_the_swarm_is_one_stream(swarm: Swarm) -> None:
    with swarm.queen.client() as client, httpx_sse.connect_sse(client, "GET", "/v2/events") as source:
        told = events_of(source.response)
        name, state = next(told)
        assert name == "state"
        assert [node["node"] for node in state["nodes"]] == ["local", "attic", "cellar"]
        missing = {"local", "attic"} - {node["node"] for node in state["nodes"] if node["status"] == "alive"}
        while missing:  # they come in any order
            missing.discard(until(told, "node", status="alive")["node"])
        with swarm.queen.client() as other:
            body = {"prompt": "a", "node": "attic"}
            handle = other.post("/v2/tasks", json=body).json()
        request, worker = {"request_id": handle["request_id"]}, {"worker_id": handle["worker_id"], "node": "attic"}
        assert until(told, "task", **request)["state"] == "waiting"
        seen = until(told, "worker", **worker)
        assert set(seen) == set(swarm_worker(swarm))
        until(told, "task", **request, **worker, state="placed")
        until(told, "task", **request, state="ended")
        with swarm.queen.client() as other:
            other.post("/v2/workers/shutdown", json={"worker_id": handle["worker_id"]})
        until(told, "gone", **worker, reason=None)
        swarm.attic.signal(signal.SIGKILL)
        until(told, "node", node="attic", status="unreachable")
        start = time.monotonic()
        swarm.queen.signal()
        assert swarm.queen.wait() == (0, "")
        assert time.monotonic() - start < 5


def test_downloads_are_seen_while_they_run(daemons: Any, tmp_path: Path) -> None:
    model = tmp_path / "m.Q4_K_M.gguf"
    model.write_bytes(b"GGUF" + bytes(999_996))
    with Hub() as hub:
        hub.add("bees/m", model)
        hub.then(Fault(rate=500_000, stall=0.9))
        environment = {"HF_ENDPOINT": hub.url, "RBEE_HUB_PRIVATE_REDIRECTS": "true"}
        swarm = Swarm(daemons, RBEE_PATHS_MODELS_DIR=str(tmp_path / "models"), **environment)
        with swarm.queen.client() as client, httpx_sse.connect_sse(client, "GET", "/v2/events") as source:
            told = events_of(source.response)
            if {"node": "attic", "status": "alive"} not in next(told)[1]["nodes"]:
                until(told, "node", node="attic", status="alive")
            with swarm.queen.client() as other:
                asked = {"model_ref": "hf:bees/m"}
                begun = other.post(f"{swarm.attic.url}/v1/models/download", json=asked).json()
                mine = {"node": "attic", "model_ref": "hf:bees/m", **begun}
                assert until(told, "download")["stage"] == "asking"
                half = until(told, "download", stage="downloading", **mine)
                while half["bytes_downloaded"] < 800_000:
                    half = until(told, "download", stage="downloading", **mine)
                (shown,) = json.loads(swarm.run("status", "--json")[1])["downloads"]
                assert set(shown) == set(half)
                assert (shown["node"], shown["stage"], shown["bytes_total"]) == ("attic", "downloading", 1_000_000)
                assert half["bytes_downloaded"] <= shown["bytes_downloaded"] <= 900_000
                _, out, _ = swarm.run("status")
                line = r"^attic: fetching hf:bees/m, (8\d|90) % of 1\.0 MB, \d\.\d MB/s$"
                assert re.search(line, out, re.MULTILINE), out
                other.delete(f"{swarm.attic.url}/v1/models/download/{begun['download_id']}")
                assert until(told, "download", stage="error", **mine)["code"] == "CANCELLED"
                assert json.loads(swarm.run("status", "--json")[1])["downloads"] == []
                begun = other.post(f"{swarm.attic.url}/v1/models/download", json=asked).json()
                done = until(told, "download", stage="complete", **begun)
                assert (done["bytes_downloaded"], done["message"]) == (1_000_000, None)


def swarm_worker(swarm: Swarm) -> dict[str, Any]:
    with swarm.queen.client() as client:
        (row,) = client.get("/v2/workers/list").json()["workers"]
    found: dict[str, Any] = row
    return found


def test_changes_are_printed_as_one_object_a_line(swarm: Swarm) -> None:
    with swarm.start("status", "--watch", "--json") as process:
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        assert next(lines)["event"] == "state"
        worker = swarm.spawn(swarm.local)
        assert any(line["event"] == "worker" and line["worker_id"] == worker for line in lines)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_watching_ends_with_the_queen(swarm: Swarm) -> None:
    with swarm.start("status", "--watch") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Queen  ")
        swarm.queen.signal()
        assert swarm.queen.wait() == (0, "")
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"The queen has ended.\n")
    code, out, err_text = swarm.run("status", "--watch")
    assert (code, out) == (1, "")
    assert err_text == "rbee: no queen is running\nhint: `rbee up` starts one that stays\n"


def test_a_terminal_shows_what_changes_and_is_given_back(swarm: Swarm) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
    shown = b""

    def read_until(words: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 20
        while words not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(ours, 65536)

    with swarm.start("status", "--watch", stdout=theirs, stderr=theirs, TERM="xterm") as process:
        read_until(b"No workers are running.")
        assert shown.startswith(b"\x1b[?1049h\x1b[?25l\x1b[HQueen  ")
        shown = b""
        worker = swarm.spawn(swarm.attic)
        read_until(worker[:8].encode())
        frame = shown.rpartition(b"\x1b[H")[2].partition(b"\x1b[J")[0].decode()
        lines = [line.removesuffix("\x1b[K") for line in frame.split("\r\n")]
        assert max(map(len, lines)) == 60
        shown = b""
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 60, 0, 0))
        read_until("…\x1b[K\x1b[J".encode())  # cut where the terminal ends
        process.send_signal(signal.SIGINT)
        read_until(b"\x1b[?25h\x1b[?1049l")
        process.wait(20)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 130
