"""The disconnect matrix: a client goes, in each phase of its request and in each way, and its slot is free again."""

from __future__ import annotations

import importlib.util
import re
import time
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil
import pytest

from tests.kit.leaving import AT_ONCE, WAYS, leave
from tests.kit.models import make
from tests.kit.raw_client import Client
from tests.kit.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import httpx

    from tests.conftest import Cell
    from tests.kit.leaving import Way

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

STALLED: Final = 1.0
CONTEXT: Final = 6144
ENDLESS: Final = 4900  # capital letters go round for ever: several seconds
LONG: Final = "a" * 500 + "A"  # a seventh of a second, and more where others compute
AT_MOST: Final = 1.0
"""Seconds for which the slot of a client that has gone is held; a decode step takes a thousandth of that."""
GIVEN_UP: Final = 5.0
"""Seconds until the connection of one that says nothing is given up: what is left of its phase, and some text that fits
the buffers; the limit, and a quarter of it between two looks; the kernel's probes count whole seconds."""


class Lab:
    """A queen with a hive and a worker of one slot, and what they say about themselves."""

    def __init__(self, daemons: Any, model: Path) -> None:
        self.daemons = daemons
        self.model = model
        self.queen = daemons.start(
            "queen",
            RBEE_WORKER_SLOTS="1",
            RBEE_WORKER_CONTEXT=str(CONTEXT),
            RBEE_WORKER_THREADS="1",
            RBEE_TIMEOUTS_STALLED=str(STALLED),
        )
        self.http: httpx.Client = self.queen.client()
        task = {"prompt": "x", "model": f"file:{model}"}
        self.worker: dict[str, Any] = self.http.post("/v2/tasks", json=task).json()
        self.wait_until(lambda: self.state(self.worker) == "idle")

    def whole(self, ask: Callable[[str], Client]) -> None:
        """Have a request answered to its end."""
        with closing(ask("x")) as client:
            assert client.until(lambda event: "done" in event)["total_tokens"] == 2

    def ask(self, prompt: str, **fields: Any) -> Client:
        """Ask the worker itself."""
        body = {"prompt": prompt, "temperature": 0, "narrate": True, **fields}
        return Client(f"{self.worker['worker_url']}/v1/inference", self.worker["api_key"], body)

    def relay(self, prompt: str, *, model: Path | None = None, **fields: Any) -> Client:
        """Ask through the queen."""
        body = {"prompt": prompt, "model": f"file:{model or self.model}", "temperature": 0, "narrate": True}
        return Client(f"{self.queen.url}/v2/tasks", self.queen.token, body | {"relay": True} | fields)

    def state(self, worker: dict[str, Any]) -> str:
        """Return what a worker says."""
        return str(self.http.get(f"{worker['worker_url']}/v1/ready").json()["state"])

    def completed(self, worker: dict[str, Any]) -> int:
        """Return how many generations a worker has brought to their length."""
        headers = {"Authorization": f"Bearer {worker['api_key']}"}
        figures = self.http.get(f"{worker['worker_url']}/metrics", headers=headers).text
        found = re.search(r'^rbee_worker_requests_total{outcome="length"} (\d+)', figures, re.MULTILINE)
        return int(found[1]) if found else 0

    def tasks(self) -> int:
        """Return how many tasks the queen has."""
        found = re.search(r"^rbee_tasks (\d+)", self.http.get("/metrics").text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = self.daemons.left()
        assert psutil.STATUS_ZOMBIE not in [process.status() for process in found]
        return found

    def descriptors(self) -> dict[int, int]:
        """Return how many files and sockets each daemon has open, by pid."""
        return {process.pid: process.num_fds() for process in self.processes()}

    def end_worker_of(self, model: Path) -> None:
        (process,) = [process for process in self.processes() if str(model) in process.cmdline()]
        process.terminate()
        process.wait(20)

    def held(self, worker: dict[str, Any], limit: float) -> float:
        """Return for how many seconds a worker's slot is taken until the queen has no task any more."""
        watch = self.watch()
        taken = seen = 0.0
        is_over = False
        while not is_over:
            assert seen < limit, "the task did not end in time"
            time.sleep(0.005)
            is_over = self.tasks() == 0
            is_busy, before, seen = self.state(worker) == "busy", seen, watch.seconds()
            is_over &= not is_busy
            taken += (seen - before) * is_busy
        return taken

    def watch(self) -> Stopwatch:
        return Stopwatch(*(process.pid for process in self.processes()))

    def wait_until(self, condition: Callable[[], bool], limit: float = 20) -> float:
        """Return after how many seconds it was so."""
        watch = self.watch()
        while not condition():
            assert watch.seconds() < limit, "it did not come true in time"
            time.sleep(0.005)
        return watch.seconds()


@pytest.fixture(scope="module")
def lab(shared_daemons: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    found = Lab(shared_daemons, make(tmp_path_factory.mktemp("models") / "letters.gguf", context=CONTEXT))
    before = found.descriptors()
    yield found
    found.wait_until(lambda: found.descriptors() == before)
    found.http.close()


class Request(NamedTuple):
    """A request in the phase that is to be tested; `holder` has the slot that it waits for."""

    client: Client
    worker: dict[str, Any]
    holder: Client | None = None


@contextmanager
def queued(lab: Lab, folder: Path) -> Iterator[Request]:
    # In one piece, so that nobody needs to read it meanwhile.
    with closing(lab.ask("A", max_tokens=ENDLESS, stream=False)) as holder:
        lab.wait_until(lambda: lab.state(lab.worker) == "busy")
        with closing(lab.relay("A", max_tokens=ENDLESS, wait_s=60)) as client:
            client.until(lambda event: event.get("action") == "wait")
            yield Request(client, lab.worker, holder)


@contextmanager
def loading(lab: Lab, folder: Path) -> Iterator[Request]:
    model = make(folder / "large.gguf", width=1024, layers=4, feed_forward=3072, context=CONTEXT)
    with closing(lab.relay("A", model=model, max_tokens=ENDLESS)) as client:
        worker = client.until(lambda event: "worker_url" in event)
        assert lab.state(worker) == "loading"
        try:
            yield Request(client, worker)
        finally:
            client.socket.close()
            lab.wait_until(lambda: lab.state(worker) == "idle")
            lab.end_worker_of(model)


@contextmanager
def prompt(lab: Lab, folder: Path, *, is_relayed: bool = False) -> Iterator[Request]:
    with closing((lab.relay if is_relayed else lab.ask)(LONG, max_tokens=ENDLESS)) as client:
        client.until(lambda event: event.get("action") == "inference_start")
        yield Request(client, lab.worker)


@contextmanager
def decode(lab: Lab, folder: Path, *, is_relayed: bool = False) -> Iterator[Request]:
    with closing((lab.relay if is_relayed else lab.ask)("A", max_tokens=ENDLESS)) as client:
        client.until(lambda event: "token" in event)
        yield Request(client, lab.worker)


PHASES: Final[dict[str, Callable[[Lab, Path], AbstractContextManager[Request]]]] = {
    "queued": queued,
    "loading": loading,
    "prompt": prompt,
    "prompt, relayed": partial(prompt, is_relayed=True),
    "decode": decode,
    "decode, relayed": partial(decode, is_relayed=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_goes_frees_its_slot(lab: Lab, phase: str, way: Way, tmp_path: Path, cell: Cell) -> None:
    lab.whole(lab.relay)  # the queen keeps its connection to the worker for a while
    before = lab.descriptors()
    check_that_it_goes(lab, phase, way, tmp_path, cell)
    for ask in (lab.ask, lab.relay):
        lab.whole(ask)
    lab.wait_until(lambda: all(count <= before.get(pid, 0) for pid, count in lab.descriptors().items()))


def check_that_it_goes(lab: Lab, phase: str, way: Way, folder: Path, cell: Cell) -> None:
    lab.wait_until(lambda: lab.state(lab.worker) == "idle" and lab.tasks() == 0)
    with PHASES[phase](lab, folder) as (client, worker, holder):
        completed = lab.completed(worker)
        leave(client.socket, way)
        if holder and way in AT_ONCE:
            taken = lab.wait_until(lambda: lab.tasks() == 0)
            assert lab.state(worker) == "busy", "who held the slot has ended: this proves nothing"
        else:
            if holder:
                holder.close()  # who waits is sent next to nothing, and so not missed: it gets its turn
            taken = lab.held(worker, AT_MOST if way in AT_ONCE else GIVEN_UP)
        cell("A client goes: seconds for which its slot is held", phase, way, f"{taken:.2f}")
        assert taken < AT_MOST
        assert lab.completed(worker) == completed, "it has come to its end: this proves nothing"
    lab.wait_until(lambda: lab.state(lab.worker) == "idle", AT_MOST)


def test_nothing_of_all_these_is_left_in_the_context(lab: Lab) -> None:
    """A prompt takes all of it; a sequence that had been forgotten there would leave no room."""
    with closing(lab.ask("a" * (CONTEXT - 20) + "A", max_tokens=5)) as client:
        assert client.until(lambda event: "done" in event)["total_tokens"] == 5
