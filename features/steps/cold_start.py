"""Steps about the first run of a model on another machine, from an empty one to its first words."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from features.lab.terminal import run_on_terminal
from features.steps.models import REPOSITORY, STEM, M
from features.steps.nodes import NAME, listed
from tests.kit import tinyllama

if TYPE_CHECKING:
    from pathlib import Path

    from features.lab.machine import Machine
    from features.lab.node import Nodes
    from features.lab.seen import Seen
    from tests.kit.hub import Hub


@given("workstation is registered, and reaches that hub")
def _reaches_hub(machine: Machine, nodes: Nodes, hub: Hub) -> None:
    nodes.add(NAME, {"HF_ENDPOINT": hub.url, "RBEE_HUB_PRIVATE_REDIRECTS": "true"}).register(machine)


@given("the queen has known it for a while")
def _known(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    (row,) = listed(machine)
    assert nodes[NAME].processes() == {}, "neither hive nor worker"
    assert not (nodes[NAME].home / ".local/share/rbee/models").exists()
    seen.connected = row["last_connected_unix"]


@when("the user runs infer with M and 20 tokens there, on a terminal")
def _infer(machine: Machine, seen: Seen) -> None:
    asked = ("--node", NAME, "--model", M, "--prompt", "A", "--max-tokens", "20", "--temperature", "0")
    seen.done = shown = run_on_terminal(machine, "infer", *asked)
    seen.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.text)


@then("the terminal showed SSH, hive, download with percent and speed, check, worker, ready callback, loading and text")
def _told(seen: Seen) -> None:
    told = (
        r"Connecting to \S+ by SSH",
        f"Starting the hive on {NAME}",
        "Downloading hf:",
        r"\d+ %  .* of .*  \d+\.\d MB/s",
        "Downloaded hf:",
        " MB of free RAM",
        "Starting a worker",
        "The worker has called back",
        "Loaded the model",
        f"\n{tinyllama.ANSWER[:20]}\r?\n",
    )
    at = 0
    for words in told:
        found = re.compile(words).search(seen.text, at)
        assert found, (words, seen.text)
        at = found.start()


@then("the node's last connection has moved, and it is reachable")
def _connected(machine: Machine, seen: Seen) -> None:
    (row,) = listed(machine)
    assert seen.connected < row["last_connected_unix"] <= time.time()
    assert row["status"] == "reachable"


@then("the catalogue there has one row for M")
def _row(machine: Machine, nodes: Nodes, seen: Seen, small_model: Path) -> None:
    with nodes[NAME].hive(machine) as hive:
        (row,) = hive.get("/v1/models/list").json()["models"]
    seen.row = row
    assert (row["id"], row["provider"], row["reference"]) == (STEM, "hf", REPOSITORY)
    assert row["size_bytes"] == small_model.stat().st_size


@then("the worker there is idle, at port 8001, and runs the file that the row names")
def _worker(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    with nodes[NAME].hive(machine) as hive:
        (worker,) = hive.get("/v1/workers/list").json()["workers"]
    seen.worker = worker
    assert (worker["url"], worker["state"], worker["model_ref"]) == (f"http://{nodes[NAME].address}:8001", "idle", M)
    ((pid, words),) = nodes[NAME].daemons("worker").items()
    assert (pid, words[words.index("--model-path") + 1]) == (worker["pid"], seen.row["local_path"])


@then("a request for M there is sent to that very address")
def _direct(machine: Machine, seen: Seen) -> None:
    with machine.queen() as queen:
        task = queen.post("/v2/tasks", json={"prompt": "A", "node": NAME, "model": M}).json()
    assert (task["worker_url"], task["direct"]) == (seen.worker["url"], True), json.dumps(task)
