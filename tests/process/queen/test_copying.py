"""A queen that knows which node has a model: the next node copies it from there."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters import tokens
from tests.kit import models
from tests.kit.hub import Hub
from tests.kit.ports import own_address
from tests.kit.remote_nodes import register, start_hive
from tests.process.hive.test_models import FILE, REF, events_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Daemons

LOOK_SECONDS = 2.0
SLACK = 2.0
"""Seconds that a download may take on a busy machine."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make(tmp_path_factory.mktemp("model") / FILE)


@pytest.fixture
def size(model: Path) -> int:
    return model.stat().st_size


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add("bees/model", model)
        yield hub


class Swarm:
    """A queen with `local`, `attic` and `cellar`, each with a folder of models of its own."""

    def __init__(self, daemons: Daemons, hub: Hub) -> None:
        self._daemons = daemons
        self._environment = {
            "HF_ENDPOINT": hub.url,
            "RBEE_HUB_PRIVATE_REDIRECTS": "true",
            "RBEE_WORKER_CONTEXT": "64",
        }
        self._addresses = {"attic": own_address(), "cellar": own_address()}
        register(daemons.home, *self._addresses.items())
        tokens.load_or_create(daemons.home / "token")
        self.attic, self.cellar = self.start("attic"), self.start("cellar")
        self.queen = daemons.start("queen", **self._own("local"))

    def _own(self, name: str) -> dict[str, str]:
        return self._environment | {"RBEE_PATHS_MODELS_DIR": str(self._daemons.home.with_name(f"models-{name}"))}

    def start(self, name: str) -> Any:
        return start_hive(self._daemons, name, self._addresses[name], **self._own(name))

    def wait_for(self, name: str) -> None:
        """Return once the queen follows the hive of a node, and so would ask it."""
        with self.queen.client() as client, client.stream("GET", "/v2/events") as answer:
            for _, event in events_of(answer):
                nodes = event.get("nodes", [event])
                if any((one.get("node"), one.get("status")) == (name, "alive") for one in nodes):
                    return

    def ask(self, path: str, **request: Any) -> list[tuple[str, dict[str, Any]]]:
        accept = {"Accept": "text/event-stream"}
        with self.queen.client() as client, client.stream("POST", path, json=request, headers=accept) as answer:
            return list(events_of(answer))

    def pull(self, node: str, reference: str = REF) -> list[str]:
        """Have a node get the model; returns what was said, and at last what came of it."""
        events = self.ask("/v2/models/pull", model_ref=reference, node=node)
        return [event["human"] for name, event in events if name == "narration"] + [events[-1][0]]


@pytest.fixture
def swarm(daemons: Daemons, hub: Hub) -> Swarm:
    found = Swarm(daemons, hub)
    for name in ("attic", "cellar"):
        found.wait_for(name)
    return found


def test_a_node_copies_what_another_one_has(swarm: Swarm, hub: Hub, size: int) -> None:
    assert not any("Copying" in line for line in swarm.pull("attic"))
    events = swarm.ask("/v2/tasks", prompt="A", model=f"{REF}:Q4_K_M", node="cellar")
    said = [event["human"] for name, event in events if name == "narration"]
    assert f"Copying {REF}:Q4_K_M (Q4_K_M, {size / 1e6:.1f} MB) from attic" in said
    assert events[-1][0] == "worker"
    assert hub.sent == size


def test_the_queens_own_host_copies_and_is_copied_from(swarm: Swarm, hub: Hub, size: int) -> None:
    swarm.pull("attic")
    assert any(line.endswith(" from attic") for line in swarm.pull("local"))
    swarm.attic.signal(signal.SIGKILL)
    swarm.attic.wait()
    assert any(line.endswith(" from local") for line in swarm.pull("cellar"))
    assert hub.sent == size


def test_a_node_that_has_it_says_so_and_tells_nothing_of_copying(swarm: Swarm, hub: Hub) -> None:
    swarm.pull("attic")
    asked = len(hub.asked)
    assert swarm.pull("attic") == ["result"]
    assert len(hub.asked) == asked


def test_of_nodes_that_are_alike_the_one_that_has_the_model_is_chosen(swarm: Swarm, hub: Hub, size: int) -> None:
    swarm.pull("cellar")
    events = swarm.ask("/v2/tasks", prompt="A", model=REF)
    said = [event["human"] for name, event in events if name == "narration"]
    assert said[0].startswith("Choosing cellar of 3 nodes: ")
    assert said[0].endswith(" GB of memory are free there, and the model is on its disk")
    assert events[-1][1]["node"] == "cellar"
    assert hub.sent == size


def test_a_node_that_does_not_say_what_it_has_costs_two_seconds(swarm: Swarm, hub: Hub, size: int) -> None:
    swarm.pull("attic")
    swarm.attic.signal(signal.SIGSTOP)
    began = time.monotonic()
    said = swarm.pull("cellar")
    assert time.monotonic() - began < LOOK_SECONDS + SLACK
    assert any("Downloading" in line for line in said)
    assert said[-1] == "result"
    assert hub.sent == 2 * size


def test_a_hive_that_does_not_run_is_not_started_for_it(swarm: Swarm, hub: Hub, size: int) -> None:
    swarm.pull("attic")
    swarm.attic.signal()
    swarm.attic.wait()
    assert any("Downloading" in line for line in swarm.pull("cellar"))
    assert hub.sent == 2 * size
