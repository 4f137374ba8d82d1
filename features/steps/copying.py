"""Steps about models that one machine copies from another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_bdd import given, then, when

from features.lab.node import HIVE_PORT
from features.steps.models import REPOSITORY, STEM, M
from tests.kit.ports import own_address
from tests.kit.proxy import Proxy
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.lab.machine import Machine
    from features.lab.node import Node, Nodes
    from features.lab.seen import Seen
    from tests.kit.hub import Hub

FILE = f"{STEM}.gguf"


@pytest.fixture
def slow() -> Iterator[list[Proxy]]:
    """What stands at attic's address, once a step has put it there."""
    made: list[Proxy] = []
    yield made
    for proxy in made:
        proxy.close()


@given("attic and cellar are registered, with rbee, and reach that hub")
def _two(machine: Machine, nodes: Nodes, hub: Hub) -> None:
    for name in ("attic", "cellar"):
        node = nodes.add(name, _reaching(hub))
        node.register(machine)
        node.bring_rbee(machine)


def _reaching(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "RBEE_HUB_PRIVATE_REDIRECTS": "true"}


@given("attic has fetched M")
def _fetched(machine: Machine, hub: Hub, small_model: Path) -> None:
    done = machine.run("models", "pull", M, "--node", "attic")
    assert done.returncode == 0, done.stderr.decode()
    assert hub.sent == small_model.stat().st_size


@given("the last byte of its file has changed")
def _changed(machine: Machine, nodes: Nodes) -> None:
    path = Path(_row(machine, nodes["attic"])["local_path"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)


@given("half of what attic sends arrives")
def _slow(machine: Machine, nodes: Nodes, hub: Hub, slow: list[Proxy], small_model: Path, seen: Seen) -> None:
    """Another hive of that installation takes its place, and is reached through a proxy."""
    attic = nodes["attic"]
    (pid,) = attic.daemons("hive")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not attic.has_hive() and not attic.daemons("hive"))
    address = own_address()
    proxy = Proxy((address, HIVE_PORT), host=attic.address, port=HIVE_PORT)
    slow.append(proxy)
    folder = attic.install
    seen.hive = subprocess.Popen(
        [str(folder / "bin" / "rbee"), "hive", "--host", address, "--config", str(folder / "config.toml")],
        env={"HOME": str(attic.home), "PATH": attic.path, "RBEE_CACHE": str(folder / "cache")} | _reaching(hub),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(attic.has_hive)
    assert machine.run("models", "list", "--node", "attic").returncode == 0
    proxy.hold("answers", after=small_model.stat().st_size // 2)


def _row(machine: Machine, node: Node) -> dict[str, Any]:
    with node.hive(machine) as hive:
        (row,) = hive.get("/v1/models/list").json()["models"]
    found: dict[str, Any] = row
    return found


@when("the user runs infer with M and 20 tokens on cellar")
def _infer(machine: Machine, seen: Seen) -> None:
    asked = ("--node", "cellar", "--model", M, "--prompt", "A", "--max-tokens", "20", "--temperature", "0")
    seen.done = machine.run("infer", *asked)


@when("the user pulls M on cellar, and the hive of attic is killed half-way")
def _killed(machine: Machine, nodes: Nodes, slow: list[Proxy], small_model: Path, seen: Seen) -> None:
    pull = machine.start("models", "pull", M, "--node", "cellar")
    part = nodes["cellar"].home / ".local/share/rbee/models/hf" / REPOSITORY / f"{FILE}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 0.3 * small_model.stat().st_size)
    seen.hive.kill()
    seen.hive.wait()
    slow[0].order("cut")
    out, errors = pull.communicate(timeout=40)
    seen.done = subprocess.CompletedProcess(pull.args, pull.returncode, out, errors)


@then("stderr says where M is copied from")
def _says(seen: Seen) -> None:
    told = seen.done.stderr.decode()
    assert f"Copying {M} (Q4_K_M, " in told
    assert ") from attic" in told
    assert "Downloading" not in told


@then("attic and cellar both list M")
def _both(machine: Machine) -> None:
    done = machine.run("models", "list", "--json")
    held = {node["node"]: [row["id"] for row in node["models"]] for node in json.loads(done.stdout)["nodes"]}
    assert held == {"local": [], "attic": [STEM], "cellar": [STEM]}


@then("the hub has sent M twice")
def _twice(hub: Hub, small_model: Path) -> None:
    assert hub.sent == 2 * small_model.stat().st_size


@then("attic and the hub have together given M once more")
def _together(nodes: Nodes, hub: Hub, small_model: Path) -> None:
    size = small_model.stat().st_size
    rest = hub.content()[-1]
    begins = int(rest.headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert 0.3 * size < begins < size
    assert hub.sent - size == rest.sent == size - begins
    copied = nodes["cellar"].home / ".local/share/rbee/models/hf" / REPOSITORY / FILE
    assert copied.read_bytes() == small_model.read_bytes()
