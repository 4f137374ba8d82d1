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
def test_keeper_and_queen_and_whichever_goes_on_with_the_files(
    swarm: Swarm, earlier: str, *, is_keeper_earlier: bool
) -> None:
    """The files: databases, token, and the lock files of daemons that ended and of ones that were killed."""
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
    # The other build finds what the queen and its hive have left.
    assert infer(swarm, keeper) == text
    run(swarm, queen, "up")
    infer(swarm, queen)
    kill(swarm, "queen")
    run(swarm, keeper, "down")
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


@pytest.mark.parametrize("is_other_earlier", [True, False], ids=["hive and worker earlier", "queen earlier"])
def test_each_daemon_outlives_the_one_above_it(swarm: Swarm, earlier: str, *, is_other_earlier: bool) -> None:
    """A new queen finds a hive with its worker, and a new hive a worker."""
    new, other = (TODAY, earlier) if is_other_earlier else (earlier, TODAY)
    run(swarm, other, "up")
    text = infer(swarm, other)
    running = swarm.find("hive"), swarm.find("worker")
    kill(swarm, "queen")
    run(swarm, new, "up")
    assert infer(swarm, new) == text
    assert (swarm.find("hive"), swarm.find("worker")) == running
    kill(swarm, "hive")
    kill(swarm, "queen")
    run(swarm, new, "up")
    assert infer(swarm, new) == text
    assert swarm.find("hive") != running[0]
    assert swarm.find("worker") == running[1]
    assert [row["state"] for row in stored_workers(swarm.home)] == ["idle"]
    run(swarm, new, "down")
    wait_until(lambda: not swarm.processes(), "nothing is left", 5)


def kill(swarm: Swarm, role: str) -> None:
    identity = swarm.find(role)
    assert identity is not None
    assert process.send_signal(identity, signal.SIGKILL)
    wait_until(lambda: not process.is_running(identity), f"the {role} is gone", PATIENCE)
