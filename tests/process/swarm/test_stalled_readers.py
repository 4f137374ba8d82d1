"""Readers that stop reading cost little memory, and their slots are free as soon as the text is written."""

from __future__ import annotations

import importlib.util
import re
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from tests.kit.leaving import leave
from tests.kit.models import make
from tests.kit.raw_client import Client
from tests.kit.standins import standin
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cell

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

READERS: Final = 4
PATIENT: Final = {"RBEE_TIMEOUTS_STALLED": "60", "RBEE_WORKER_THREADS": "1"}
MEGABYTES: Final = 4.0
"""By which a daemon may grow meanwhile."""


class Swarm:
    """A queen, its hive and one worker that is ready."""

    def __init__(self, daemons: Any, model: str, **settings: str) -> None:
        self.model = model
        self.queen = daemons.start("queen", **PATIENT, **settings)
        with self.queen.client() as client:
            self.worker = client.post("/v2/tasks", json={"prompt": "x", "model": model}).json()
            ready = f"{self.worker['worker_url']}/v1/ready"
            wait_until(lambda: client.get(ready).json()["state"] == "idle", "the worker is not ready")

    def ask(self, *, is_relayed: bool, **fields: Any) -> Client:
        body: dict[str, Any] = {"prompt": "A", "temperature": 0} | fields
        if is_relayed:
            return Client(f"{self.queen.url}/v2/tasks", self.queen.token, body | {"model": self.model, "relay": True})
        return Client(f"{self.worker['worker_url']}/v1/inference", self.worker["api_key"], body)

    def completed(self) -> int:
        """Return how many generations have come to their length."""
        headers = {"Authorization": f"Bearer {self.worker['api_key']}"}
        with self.queen.client() as client:
            text = client.get(f"{self.worker['worker_url']}/metrics", headers=headers).text
        found = re.search(r'^rbee_worker_requests_total{outcome="length"} (\d+)', text, re.MULTILINE)
        return int(found[1]) if found else 0


def megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def wait_at_rest(process: psutil.Process) -> None:
    """Return once a process computes next to nothing."""

    def is_at_rest() -> bool:
        before = process.cpu_times()
        time.sleep(0.3)
        after = process.cpu_times()
        return after.user + after.system - before.user - before.system < 0.03

    wait_until(is_at_rest, "it is busy all the time")


@pytest.mark.parametrize("is_relayed", [False, True], ids=["direct", "relayed"])
def test_a_short_answer_frees_its_slot_read_or_not(daemons: Any, tmp_path: Path, is_relayed: bool) -> None:
    model = make(tmp_path / "letters.gguf")
    swarm = Swarm(daemons, f"file:{model}", RBEE_WORKER_SLOTS="1")
    with closing(swarm.ask(is_relayed=is_relayed, max_tokens=200)) as client:
        leave(client.socket, "stops reading")
        wait_until(lambda: swarm.completed() == 1, "its text is not written", 5)
        with closing(swarm.ask(is_relayed=is_relayed, max_tokens=5)) as other:
            assert other.until(lambda event: "done" in event)["total_tokens"] == 5


def test_a_worker_holds_little_for_many_readers_that_stall(daemons: Any, tmp_path: Path, cell: Cell) -> None:
    tokens = 500
    model = make(tmp_path / "letters.gguf", context=1024)
    swarm = Swarm(daemons, f"file:{model}", RBEE_WORKER_SLOTS=str(READERS))
    (worker,) = [process for process in daemons.left() if swarm.worker["worker_id"] in process.cmdline()]

    def grown(*, is_read: bool) -> float:
        """Have so many answers written, and return by how much the worker has grown when they are."""
        before, completed = megabytes(worker), swarm.completed()
        with ExitStack() as stack:
            for _ in range(READERS):
                client = stack.enter_context(closing(swarm.ask(is_relayed=False, max_tokens=tokens)))
                if not is_read:
                    leave(client.socket, "stops reading")
            wait_until(lambda: swarm.completed() == completed + READERS, "the texts are not written")
            return megabytes(worker) - before

    grown(is_read=True)
    growth = grown(is_read=False)
    cell("Readers that stall: MB by which memory grows", f"worker, {READERS} of its own", "growth", f"{growth:.1f}")
    assert growth < MEGABYTES


def test_a_queen_takes_no_more_than_her_readers_do(daemons: Any, cell: Cell) -> None:
    """The worker writes as fast as it can, and would for ever."""
    swarm = Swarm(daemons, "builtin:bee-stories", RBEE_WORKER_COMMAND=standin("well"))
    queen = psutil.Process(swarm.queen.process.pid)
    with closing(swarm.ask(is_relayed=True, max_tokens=10_000)) as client:
        client.until(lambda event: "done" in event)
    before, descriptors = megabytes(queen), queen.num_fds()
    with ExitStack() as stack:
        for _ in range(READERS):
            client = stack.enter_context(closing(swarm.ask(is_relayed=True, max_tokens=2**31 - 1)))
            client.until(lambda event: "token" in event)
            leave(client.socket, "stops reading")
        wait_at_rest(queen)
        growth = megabytes(queen) - before
        cell("Readers that stall: MB by which memory grows", f"queen, {READERS} relayed", "growth", f"{growth:.1f}")
        assert growth < MEGABYTES
    wait_until(lambda: queen.num_fds() <= descriptors, "connections are left")
