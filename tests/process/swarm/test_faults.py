"""Whatever fails at whichever await of a daemon: the daemon lives, and only what waited for it fails."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from rbee.adapters.daemon import instance, process
from tests.kit import faulty_rbee
from tests.kit.faulty_rbee import KINDS, ROLES, Faults
from tests.kit.hub import Hub
from tests.kit.models import make
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cell

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

QUEEN_PATHS: Final = (
    "/health",
    "/v2/workers/list",
    "/v2/workers/health?node=local",
    "/v2/logs?node=local&lines=3&follow=false",
    "/v2/registry/beehives/list",
    "/metrics",
)
HIVE_PATHS: Final = ("/v1/resources", "/v1/backends", "/v1/models/list", "/v1/workers/list", "/metrics")
FEW: Final = 40
"""Without --full one site in so many is tried."""
TITLE: Final = "Faults: whatever fails at whichever await of queen, hive and worker"
COMPLETE: Final = "complete"
CUT: Final = "cut"
INTERNAL: Final = "INTERNAL_ERROR"


class FaultySwarm(Swarm):
    """A swarm whose daemons fail where they are told to, and what its users do."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.faults = Faults(folder / "faults")
        self.model = make(folder / "model.gguf", width=512)
        super().__init__(
            folder / "home",
            RBEE_TEST_FAULTS=str(self.faults.folder),
            RBEE_WORKER_CONTEXT="64",
            RBEE_TIMEOUTS_HEALTH_INTERVAL="0.5",
            RBEE_TIMEOUTS_DOWNLOAD_DELAYS="0.01 0.01",
            RBEE_PATHS_MODELS_DIR=str(folder / "models"),
            RBEE_HUB_PRIVATE_REDIRECTS="true",
            HF_ENDPOINT=hub.url,
        )
        self.program = [sys.executable, faulty_rbee.__file__]
        hub.add("bees/model", self.model, name="model.Q4_K_M.gguf")

    def ask_for_text(self) -> str:
        """Have a request answered through the queen; returns how it ended, or the error's code."""
        relayed = self.relay(f"file:{self.model}", 3)
        relayed.ended.wait(60)
        self.clients.remove(relayed)
        return relayed.said.partition(":")[0] if relayed.outcome == "error" else outcome(relayed.outcome)

    def look(self) -> str:
        """Ask for all that can be asked without changing anything."""
        hive = self.hive()
        assert hive is not None
        with self.client() as queen, self._client(hive.url) as client:
            found = [get(queen, path) for path in QUEEN_PATHS] + [get(client, path) for path in HIVE_PATHS]
        return next((one for one in found if one != COMPLETE), COMPLETE)

    def download(self) -> str:
        """Have the hive fetch a model, and remove it."""
        hive = self.hive()
        assert hive is not None
        ended = CUT
        with self._client(hive.url) as client:
            with suppress(httpx.TransportError):
                ended = self._pull(client)
            wait_until(lambda: not self._models(client), "the model is removed")
        return ended

    def _pull(self, client: httpx.Client) -> str:
        last: dict[str, Any] = {}
        asked = {"json": {"model_ref": "hf:bees/model"}, "headers": {"Accept": "text/event-stream"}}
        with client.stream("POST", "/v1/models/download", **asked) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    last = json.loads(line.removeprefix("data: "))
                elif line.startswith("{"):
                    last = json.loads(line)
        return str(last["error"]["code"]) if "error" in last else COMPLETE if last else CUT

    def _models(self, client: httpx.Client) -> bool:
        """Remove what was fetched; returns whether something may be left."""
        try:
            rows = client.get("/v1/models/list").json()["models"]
            return bool([client.delete(f"/v1/models/{row['id']}") for row in rows])
        except (httpx.TransportError, KeyError):
            return True

    def start_over(self) -> str:
        """End the worker, and ask for text again."""
        hive = self.hive()
        assert hive is not None
        with self._client(hive.url) as client:
            for row in self.known_workers():
                wait_until(lambda row=row: self._end(client, row["id"]), "the worker is gone")
        return self.ask_for_text()

    def _end(self, client: httpx.Client, worker_id: str) -> bool:
        """Have a worker end, again if it was refused; returns whether it is gone."""
        if worker_id in [row["id"] for row in self.known_workers()]:
            with suppress(httpx.TransportError):
                client.delete(f"/v1/workers/{worker_id}")
            return False
        return True

    def known_workers(self) -> list[dict[str, Any]]:
        """Return the hive's list, as soon as it gives it: the question may be what fails."""

        def ask() -> list[dict[str, Any]] | None:
            with suppress(KeyError):
                return self.listed()
            return None

        def is_there() -> bool:
            nonlocal found
            found = ask()
            return found is not None

        found: list[dict[str, Any]] | None = None
        wait_until(is_there, "the hive lists its workers")
        assert found is not None
        return found

    def wait(self) -> str:
        """Let the daemons do what they do by themselves."""
        time.sleep(0.7)
        return COMPLETE

    @property
    def loads(self) -> list[Callable[[], str]]:
        """What users do, what costs least first."""
        return [self.ask_for_text, self.look, self.download, self.wait, self.start_over]

    def daemons(self) -> dict[str, process.Identity | None]:
        """Return which processes play the roles."""
        queen, hive = instance.find(self.home, "queen"), instance.find(self.home, "hive")
        found = {"queen": queen and queen.identity, "hive": hive and hive.identity}
        worker = next((process.identify(row["pid"]) for row in self.known_workers()), None)
        return {**found, "worker": worker}


def outcome(said: str) -> str:
    """Return how a client took the end of its answer; one that is no stream is an error's JSON."""
    return said if said == COMPLETE else CUT


def get(client: httpx.Client, path: str) -> str:
    try:
        found = client.get(path)
        return COMPLETE if found.status_code < 400 else str(found.json()["error"]["code"])
    except httpx.TransportError:
        return CUT


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[FaultySwarm]:
    with Hub() as hub:
        found = FaultySwarm(tmp_path, hub)
        try:
            yield found
            found.end()
        finally:
            found.kill()


@pytest.mark.timeout(1800)  # for --full
def test_no_fault_ends_a_daemon(swarm: FaultySwarm, request: pytest.FixtureRequest, cell: Cell) -> None:
    swarm.start_queen()
    assert swarm.ask_for_text() == COMPLETE
    sites: dict[tuple[int, int], Callable[[], str]] = {}
    for load in swarm.loads:
        swarm.faults.next_round()
        assert (load(), load()) == (COMPLETE, COMPLETE)
        for site in sorted(swarm.faults.passed(), key=lambda one: (one[0], swarm.faults.sites[one[1]])):
            sites.setdefault(site, load)
    tried = list(sites.items()) if request.config.getoption("--full") else list(sites.items())[::FEW]
    outcomes: Counter[str] = Counter()
    lived = fired = 0
    for number, ((role, site), load) in enumerate(tried):
        where = f"{ROLES[role]}: {swarm.faults.sites[site]}"
        before, count = swarm.daemons(), swarm.faults.fired
        swarm.faults.arm(role, site, number % KINDS)
        ended = load()
        if swarm.faults.fired == count:
            swarm.faults.disarm()
            outcomes["was not passed again"] += 1
            continue
        fired += 1
        outcomes[ended] += 1
        wait_until(lambda: (swarm.ask_for_text(), swarm.look()) == (COMPLETE, COMPLETE), f"after a fault, {where}")
        after = swarm.daemons()
        may_change = {"worker"} if load == swarm.start_over else set()
        assert {name: after[name] for name in after if name not in may_change} == {
            name: before[name] for name in before if name not in may_change
        }, where
        lived += 1
        print(f"{where}, in {load.__name__}: {ended}")  # noqa: T201 (with -s)
    cell(TITLE, "awaits", "tried", f"{fired} ({len(sites)} passed, {len(swarm.faults.sites)} in the source)")
    cell(TITLE, "daemons", "lived", f"{lived} of {fired} times")
    for ended, count in outcomes.items():
        cell(TITLE, "requests", ended, str(count))
    assert fired > len(tried) / 2
