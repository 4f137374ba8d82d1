"""The two that are compared, each as its users start it: a queen with what she starts, and llama-server."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from comparison.client import Way

from tests.kit.ports import hold_port
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

LOADING_SECONDS = 300


class Load(NamedTuple):
    """What both are started for: a model, and so many requests at once of so many tokens each."""

    model: Path
    slots: int
    context: int
    threads: int


class Ours:
    """A queen in a home of her own, with a hive, and one worker once something was asked."""

    def __init__(self, home: Path, load: Load, **environment: str) -> None:
        self._model = f"file:{load.model}"
        self._swarm = Swarm(
            home,
            RBEE_WORKER_SLOTS=str(load.slots),
            RBEE_WORKER_CONTEXT=str(load.context),
            RBEE_WORKER_THREADS=str(load.threads),
            RBEE_TIMEOUTS_IDLE="36000",
            RBEE_TIMEOUTS_WORKER_READY=str(LOADING_SECONDS),
            **environment,
        )
        self._swarm.start_queen()
        port = int(self._swarm.env["RBEE_QUEEN_PORT"])
        self.queen = Way("queen", port, (home / "token").read_text().strip(), self._model)

    def worker(self) -> Way:
        """Return the way to the worker itself, which is loaded first if need be."""
        with self._swarm.client() as client:
            body = {"prompt": "x", "max_tokens": 1, "model": self._model, "request_id": str(uuid.uuid4())}
            task: dict[str, Any] = (
                client.post("/v2/tasks", json=body, timeout=LOADING_SECONDS).raise_for_status().json()
            )
            client.delete(f"/v2/tasks/{task['request_id']}").raise_for_status()
        return Way("worker", httpx.URL(task["worker_url"]).port or 0, task["api_key"], is_worker=True)

    def unload(self) -> None:
        """End the worker; returns once it is gone."""
        for row in self._swarm.workers():
            self._swarm.end_worker(row["worker_id"])
        wait_until(lambda: self._swarm.find("worker") is None, "the worker is gone")
        wait_until(lambda: not self._swarm.workers(), "the queen knows it")

    def resident_mb(self) -> float:
        """Return the memory of the worker, in megabytes of 10^6 bytes."""
        found = self._swarm.find("worker")
        assert found is not None
        return resident_mb(found.pid)

    def end(self) -> None:
        try:
            self._swarm.end()
        finally:
            self._swarm.kill()


class Theirs:
    """A llama-server with its defaults, but for the numbers that ours has too."""

    def __init__(self, program: Path, home: Path, load: Load, *options: str) -> None:
        port = hold_port()
        self.way = Way("llama-server", port)
        length = str(load.slots * load.context)
        command = [str(program), "--model", str(load.model), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--parallel", str(load.slots), "--ctx-size", length, "--threads", str(load.threads), *options]
        self._log = home / f"llama-server-{port}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return once it is ready."""
        deadline = time.monotonic() + LOADING_SECONDS
        while not _is_ready(f"http://127.0.0.1:{self.way.port}/health"):
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, "llama-server does not become ready"
            time.sleep(0.005)

    def resident_mb(self) -> float:
        return resident_mb(self._process.pid)

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _is_ready(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(json.load(answer)["status"] == "ok")
    return False


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, in megabytes of 10^6 bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6


@contextlib.contextmanager
def ours(load: Load, **environment: str) -> Iterator[Ours]:
    """Have a queen and what she starts."""
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as folder:
        side = Ours(Path(folder) / "home", load, **environment)
        try:
            yield side
        finally:
            side.end()


@contextlib.contextmanager
def theirs(program: Path, load: Load, *options: str) -> Iterator[Theirs]:
    """Have a llama-server."""
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as folder:
        side = Theirs(program, Path(folder), load, *options)
        try:
            side.wait()
            yield side
        finally:
            side.end()


@contextlib.contextmanager
def busy_processors() -> Iterator[None]:
    """Have a program on each processor that computes all the time."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()
