"""What every scenario has: a machine of its own, and the proof that nothing of it is left at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from features.lab.machine import PROGRAM, Machine
from features.lab.node import Nodes
from features.lab.seen import Seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS = (
    "cancelling",
    "chatting",
    "cold_start",
    "copying",
    "crashing",
    "daemons",
    "failing",
    "gguf_files",
    "health",
    "inference",
    "installing",
    "launching",
    "lifetimes",
    "models",
    "nodes",
    "preflight",
    "remote",
    "remote_install",
    "streams",
    "swarm",
    "workers",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the steps known to every feature, and the scenarios' tags to pytest."""
    modules = [f"features.steps.{name}" for name in STEPS]
    pytest.register_assert_rewrite(*modules)
    for module in modules:
        config.pluginmanager.import_plugin(module)
    for number in range(1, 63):
        config.addinivalue_line("markers", f"s{number:02d}: scenario {number}")
    for number in range(1, 10):
        config.addinivalue_line("markers", f"h{number}: edge case {number}")


@pytest.fixture(scope="session")
def program_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the program is extracted once for all scenarios, also where several processes share them."""
    assert PROGRAM.exists(), f"{PROGRAM} is not there: run `python3 build/zipapp.py`"
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    # Now: beside other programs it takes longer than a scenario waits for a daemon that starts.
    subprocess.run(
        [sys.executable, str(PROGRAM), "--version"],
        env=os.environ | {"RBEE_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return cache


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """The other machines, none at first; at the end nothing may run there."""
    nodes = Nodes(tmp_path / "nodes")
    try:
        yield nodes
        nodes.end()
    finally:
        nodes.kill()


@pytest.fixture
def machine(tmp_path: Path, program_cache: Path, nodes: Nodes) -> Iterator[Machine]:
    """A machine with an empty home; it ends before the nodes that it uses."""
    home = tmp_path / "home"
    home.mkdir()
    machine = Machine(home)
    machine.env["RBEE_CACHE"] = str(program_cache)
    try:
        yield machine
        machine.end()
    finally:
        machine.kill()


@pytest.fixture
def seen() -> Seen:
    """What the steps of a scenario have seen so far."""
    return Seen()
