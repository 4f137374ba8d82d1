"""After a hundred requests, many of them given up half-way and some workers killed, the daemons are as before."""

from __future__ import annotations

import importlib.util
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import psutil
import pytest

from rbee.adapters.daemon import process
from tests.kit.leaving import leave
from tests.kit.local_http import LOCAL
from tests.kit.models import make
from tests.kit.raw_client import Client, FailedError
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cell

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

REQUESTS: Final = 100
"""Twice as many with --full."""
WARM_UP: Final = 40
KILL_EVERY: Final = 20
ABORTED: Final = 0.3
CLIENTS: Final = 4
SLACK: Final = 0.05
TITLE: Final = "Churn: before and after"


class Figures(NamedTuple):
    """What a daemon holds."""

    descriptors: int
    threads: int
    megabytes: float


def figures(found: psutil.Process) -> Figures:
    return Figures(found.num_fds(), found.num_threads(), found.memory_info().rss / 1e6)


def has_spare_threads(found: psutil.Process) -> bool:
    """Tell whether trio keeps threads for blocking calls to come; it ends those that are idle for ten seconds."""
    names = [name.read_text() for name in Path(f"/proc/{found.pid}/task").glob("*/comm")]
    return any(name.startswith("Trio thread") for name in names)


def files_of(home: Path) -> set[str]:
    """Return what is in a state folder; of workers' logs the newest stay."""
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("copy/", "logs/worker-"))}


def read_for(client: Client, seconds: float) -> None:
    """Read what comes for so long."""
    end = time.monotonic() + seconds
    with suppress(TimeoutError):
        while (left := end - time.monotonic()) > 0:
            client.socket.settimeout(left)
            if not client.socket.recv(4096):
                return


class Churn:
    """Clients of a swarm that come and go, and see workers die."""

    def __init__(self, swarm: Swarm, model: str) -> None:
        self.swarm = swarm
        self.model = model
        self.url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}"
        self.token = (swarm.home / "token").read_text().strip()
        self.killed_at: list[float] = []

    def run(self, count: int, seed: int) -> Counter[str]:
        """Make `count` requests; returns what came of how many."""
        chances = [random.Random(f"{seed}.{number}") for number in range(count)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            return Counter(pool.map(self._request, range(count), chances))

    def _request(self, number: int, chance: random.Random) -> str:
        if number % KILL_EVERY == KILL_EVERY - 1:
            self._kill_worker()
        started = time.monotonic()
        patience = chance.uniform(0.001, 0.1) if chance.random() < ABORTED else None
        is_relayed = chance.random() < 0.5
        body = {"prompt": "A", "temperature": 0, "max_tokens": chance.randint(1, 100)}
        try:
            with closing((self.relayed if is_relayed else self.direct)(body)) as client:
                if patience is None:
                    found = client.until(lambda event: "done" in event)
                    return "complete" if found["total_tokens"] == body["max_tokens"] else f"wrong: {found}"
                read_for(client, patience)
                leave(client.socket, chance.choice(("closed", "reset", "half-closed")))
                return "aborted"
        except FailedError as exc:
            said = f"failed: {exc}"
        except (EOFError, OSError, httpx.TransportError) as exc:
            said = f"cut off: {exc!r}"
        # A client of a worker that is killed, or one sent there a moment later, learns that from the queen, or by the
        # end of its own connection to it.
        if (said.startswith("failed") or not is_relayed) and any(killed > started - 1 for killed in self.killed_at):
            return "told of a killed worker"
        return f"request {number}, {said}"

    def relayed(self, body: dict[str, Any]) -> Client:
        """Ask the queen, and have the text passed on by it."""
        return Client(f"{self.url}/v2/tasks", self.token, body | {"model": self.model, "relay": True, "wait_s": 30})

    def direct(self, body: dict[str, Any]) -> Client:
        """Ask as the keeper does: the queen for a worker, and this for the text."""
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(headers=headers, timeout=30, **LOCAL) as client:
            worker = client.post(f"{self.url}/v2/tasks", json=body | {"model": self.model, "wait_s": 30}).json()
            if "error" in worker:
                raise FailedError(worker)
            while client.get(f"{worker['worker_url']}/v1/ready").json()["state"] == "loading":
                time.sleep(0.02)
        return Client(f"{worker['worker_url']}/v1/inference", worker["api_key"], body)

    def _kill_worker(self) -> None:
        worker = wait_until(lambda: self.swarm.find("worker"), "there is no worker to kill")
        self.killed_at.append(time.monotonic())
        process.send_signal(worker, signal.SIGKILL)

    def settle(self, daemons: list[psutil.Process]) -> None:
        """Wait until one worker is idle, and nothing is in the making any more."""
        with closing(self.relayed({"prompt": "x", "temperature": 0})) as client:
            client.until(lambda event: "done" in event)
        wait_until(lambda: not self.swarm.differences(), f"registry and reality differ: {self.swarm.differences()}")
        wait_until(lambda: not any(map(has_spare_threads, daemons)), "threads are kept for ever")


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    (tmp_path / "tmp").mkdir()
    found = Swarm(tmp_path / "rbee", RBEE_WORKER_SLOTS="6", TMPDIR=str(tmp_path / "tmp"))
    yield found
    found.kill()


def test_the_daemons_are_as_before(swarm: Swarm, tmp_path: Path, cell: Cell, request: pytest.FixtureRequest) -> None:
    queen = swarm.start_queen()
    churn = Churn(swarm, f"file:{make(tmp_path / 'letters.gguf')}")
    churn.run(WARM_UP, seed=0)
    hive = swarm.find("hive")
    assert hive is not None
    daemons = [queen, psutil.Process(hive.pid)]
    churn.settle(daemons)
    before, files = [figures(daemon) for daemon in daemons], files_of(swarm.home)

    requests = 2 * REQUESTS if request.config.getoption("--full") else REQUESTS
    title = f"{TITLE} {requests} requests"
    outcomes = churn.run(requests, seed=1)
    churn.settle(daemons)
    after = [figures(daemon) for daemon in daemons]

    for name, told in [("queen", 0), ("hive", 1)]:
        for moment, found in [("before", before[told]), ("after", after[told])]:
            for field, value in found._asdict().items():
                cell(title, f"{name} {moment}", field, f"{value:.1f}" if field == "megabytes" else str(value))
    for outcome, count in outcomes.items():
        cell(f"{title}: what came of them", outcome, "requests", str(count))
    assert set(outcomes) == {"complete", "aborted", "told of a killed worker"}, outcomes
    for was, now in zip(before, after, strict=True):
        assert all(abs(new - old) <= SLACK * old for old, new in zip(was, now, strict=True)), (was, now)
    assert files_of(swarm.home) == files
    assert swarm.tracebacks() == []
    assert len(swarm.stored()) == 1
    swarm.end()
    assert swarm.stored() == []
    assert list((tmp_path / "tmp").iterdir()) == []
