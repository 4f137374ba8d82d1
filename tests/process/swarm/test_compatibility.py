"""Daemons, commands and files of an earlier build work together with today's: a swarm is never updated all at once."""

from __future__ import annotations

import importlib.util
import io
import json
import signal
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.daemon import process
from tests.kit.paths import ROOT
from tests.kit.swarm import Swarm, stored_workers
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine"),
    pytest.mark.timeout(180),  # up to ten commands each
]

EARLIER = "4824768"
"""The last commit before daemons reported their end in their lock files, and requests were placed from memory."""
MODEL = "builtin:bee-stories"
TODAY = str(ROOT)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the earlier build's package, out of the checkout's own history."""
    command = ["git", "-C", str(ROOT), "archive", EARLIER, "rbee"]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"the checkout's history does not reach back to {EARLIER}")
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return str(folder)


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "rbee")
    yield found
    found.kill()


def infer(swarm: Swarm, build: str) -> str:
    """Have a build's keeper generate; returns the text."""
    swarm.cwd, swarm.is_told = build, build == TODAY
    done = swarm.run("infer", "--model", MODEL, "--prompt", "The bees", "--max-tokens", "5", "--seed", "1")
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(swarm: Swarm, build: str, *arguments: str) -> str:
    swarm.cwd, swarm.is_told = build, build == TODAY
    done = swarm.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("is_keeper_earlier", [False, True], ids=["queen earlier", "keeper earlier"])
def test_keeper_and_queen(swarm: Swarm, earlier: str, *, is_keeper_earlier: bool) -> None:
    keeper, queen = (earlier, TODAY) if is_keeper_earlier else (TODAY, earlier)
    run(swarm, queen, "up")
    text = infer(swarm, keeper)
    assert text.strip()
    assert infer(swarm, keeper) == text
    (worker,) = json.loads(run(swarm, keeper, "workers", "list", "--json"))["workers"]
    assert worker["state"] == "idle"
    (node,) = json.loads(run(swarm, keeper, "status", "--json"))["nodes"]
    assert (node["node"], node["status"]) == ("local", "alive")
    run(swarm, keeper, "workers", "shutdown", "--id", worker["worker_id"])
    assert json.loads(run(swarm, keeper, "workers", "list", "--json"))["workers"] == []
    run(swarm, keeper, "down")
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


@pytest.mark.parametrize("is_hive_earlier", [True, False], ids=["hive earlier", "queen earlier"])
def test_queen_and_a_hive_with_its_worker(swarm: Swarm, earlier: str, *, is_hive_earlier: bool) -> None:
    queen, hive = (TODAY, earlier) if is_hive_earlier else (earlier, TODAY)
    run(swarm, hive, "up")
    text = infer(swarm, hive)
    running = swarm.find("hive"), swarm.find("worker")
    kill(swarm, "queen")
    run(swarm, queen, "up")
    assert infer(swarm, queen) == text
    assert (swarm.find("hive"), swarm.find("worker")) == running
    run(swarm, queen, "down")
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


@pytest.mark.parametrize("is_worker_earlier", [True, False], ids=["worker earlier", "hive earlier"])
def test_hive_and_a_worker_that_outlived_its_hive(swarm: Swarm, earlier: str, *, is_worker_earlier: bool) -> None:
    hive, worker = (TODAY, earlier) if is_worker_earlier else (earlier, TODAY)
    run(swarm, worker, "up")
    text = infer(swarm, worker)
    running = swarm.find("worker")
    kill(swarm, "hive")
    kill(swarm, "queen")
    run(swarm, hive, "up")
    assert infer(swarm, hive) == text
    assert swarm.find("worker") == running
    assert [row["state"] for row in stored_workers(swarm.home)] == ["idle"]
    run(swarm, hive, "down")
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


@pytest.mark.parametrize("is_first_earlier", [True, False], ids=["today after earlier", "earlier after today"])
def test_a_build_goes_on_with_the_files_of_another(swarm: Swarm, earlier: str, *, is_first_earlier: bool) -> None:
    """Databases, token, and the lock files of daemons that ended and of ones that were killed."""
    first, second = (earlier, TODAY) if is_first_earlier else (TODAY, earlier)
    run(swarm, first, "up")
    text = infer(swarm, first)
    run(swarm, first, "down")
    assert infer(swarm, second) == text
    run(swarm, first, "up")
    infer(swarm, first)
    kill(swarm, "queen")
    run(swarm, second, "down")
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


def kill(swarm: Swarm, role: str) -> None:
    identity = swarm.find(role)
    assert identity is not None
    assert process.send_signal(identity, signal.SIGKILL)
    wait_until(lambda: not process.is_running(identity), f"the {role} is gone", PATIENCE)
