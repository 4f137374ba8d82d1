"""Builds of neighbouring versions work together in every direction, and those of another interface are refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from rbee import __version__
from rbee.adapters.daemon import instance, process
from tests.kit import models
from tests.kit.packed import build
from tests.kit.remote_node import TEXT, RemoteNode, register
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine"),
    pytest.mark.timeout(180),  # a dozen commands each
]

OTHER = "9.9.9"
NOTICES = ("versions differ", "they work together", "not of the same version")


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "home", RBEE_TIMEOUTS_DRAIN="2", RBEE_TIMEOUTS_CASCADE="8")
    yield found
    found.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RemoteNode]:
    found = RemoteNode(tmp_path / "workstation")
    yield found
    found.close()


class Builds:
    """This build and another one; `use` chooses whose commands the swarm runs."""

    def __init__(self, swarm: Swarm, folder: Path, **interfaces: str) -> None:
        self._swarm = swarm
        folder.mkdir()
        self._files = {
            version: build(folder, version, **(interfaces if version == OTHER else {}))
            for version in (__version__, OTHER)
        }

    def use(self, version: str) -> None:
        self._swarm.program = [sys.executable, str(self._files[version])]

    def run(self, *arguments: str) -> str:
        """Run a command that works, and says at most once that versions differ."""
        self._swarm.is_told = False
        done = self._swarm.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert sum(done.stderr.count(notice) for notice in NOTICES) <= 1
        return done.stdout

    def refused(self, *arguments: str) -> str:
        self._swarm.is_told = False
        done = self._swarm.run(*arguments)
        assert done.returncode == 1, done.stdout
        return done.stderr


@pytest.mark.parametrize(
    ("first", "order"), [(__version__, "keeper queen node"), (OTHER, "node queen keeper")], ids=["forward", "back"]
)
def test_a_swarm_goes_step_by_step_to_another_version(
    swarm: Swarm, node: RemoteNode, tmp_path: Path, first: str, order: str
) -> None:
    """After each step every command works."""
    second = OTHER if first == __version__ else __version__
    model = models.make(tmp_path / "mine.gguf")
    builds = Builds(swarm, tmp_path / "builds")
    builds.use(first)
    builds.run("up")
    register(swarm, node)
    node.install_program(f"import rbee; rbee.__version__ = {first!r}")
    builds.run("infer", "--node", node.name, *TEXT)
    versions = dict.fromkeys(("keeper", "queen", "node"), first)
    for step in order.split():
        versions[step] = second
        builds.use(second)
        if step == "queen":
            builds.run("down")
            builds.run("up")
        elif step == "node" and versions["queen"] == second:
            builds.run("setup", "install", "--all", "--python", os.path.realpath(sys.executable))
        elif step == "node":  # by somebody there
            node.install_program(f"import rbee; rbee.__version__ = {second!r}")
            node.signal_hive(signal.SIGTERM)
            node.wait_empty()
        builds.use(versions["keeper"])
        check_commands(builds, node, versions, model)
    builds.run("down")
    node.wait_empty(1)


def check_commands(builds: Builds, node: RemoteNode, versions: dict[str, str], model: Path) -> None:
    assert len(builds.run("infer", "--node", node.name, *TEXT)) > 5
    status = json.loads(builds.run("status", "--json"))
    assert status["queen"]["version"] == versions["queen"]
    assert {found["node"]: found["version"] for found in status["nodes"]}[node.name] == versions["node"]
    if versions["queen"] == versions["keeper"]:
        return  # as before this step
    differs = f"version {versions['queen']}, and this command {versions['keeper']}"
    assert differs in builds.run("status")
    (worker,) = json.loads(builds.run("workers", "list", "--json"))["workers"]
    assert worker["node"] == node.name
    assert "hive" in builds.run("logs", "--node", node.name)
    builds.run("models", "push", str(model), "--node", node.name)


@pytest.mark.parametrize("keeper", [__version__, OTHER], ids=["queen newer", "keeper newer"])
def test_keeper_and_queen_of_another_interface(swarm: Swarm, tmp_path: Path, keeper: str) -> None:
    builds = Builds(swarm, tmp_path / "builds", queen="v3")
    queen = OTHER if keeper == __version__ else __version__
    builds.use(queen)
    builds.run("up")
    builds.use(keeper)
    for command in ("up", "status", "infer --prompt x", "logs --node attic", "workers list"):
        said = builds.refused(*command.split()).splitlines()
        assert said[0] == "rbee: keeper and queen are not of the same version", command
        assert said[1:3] == [f"  rbee-keeper {keeper}", f"  queen-rbee  {queen}"]
        assert "`rbee down` ends the queen; the next command starts one of this version" in said[3]
    builds.run("down")
    builds.run("up")
    assert f"version {keeper}" in builds.run("status")
    builds.run("down")
    wait_until(lambda: not swarm.processes(), "nothing is left")


def test_a_worker_of_another_interface_that_outlived_its_hive(swarm: Swarm, tmp_path: Path) -> None:
    """It ends, and the next request has a new one; test_compatibility has one of a neighbouring version."""
    builds = Builds(swarm, tmp_path / "builds", others="v0")
    builds.use(OTHER)
    builds.run("up")
    text = builds.run("infer", *TEXT)
    (before,) = swarm.stored()
    for role in ("hive", "queen"):
        running = instance.find(swarm.home, role)
        assert running is not None
        assert process.send_signal(running.identity, signal.SIGKILL)
        wait_until(lambda: not process.is_running(running.identity), "it is gone")  # noqa: B023 (it is waited for)
    builds.use(__version__)
    builds.run("up")
    assert builds.run("infer", *TEXT) == text
    (worker,) = json.loads(builds.run("workers", "list", "--json"))["workers"]
    assert worker["worker_id"] != before["id"]
    wait_until(lambda: [row["id"] for row in swarm.stored()] == [worker["worker_id"]], "the other one has ended")
    builds.run("down")
    wait_until(lambda: not swarm.processes(), "nothing is left")
