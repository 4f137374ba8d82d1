"""Steps about what is checked before a worker starts: memory and backend."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import psutil
import pytest
from pytest_bdd import given, parsers, then, when

from features.lab.limits import MemoryLimit
from features.lab.models import make_sparse_model
from features.steps.streams import events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from features.lab.machine import Machine
    from features.lab.seen import Seen

MEGABYTE = 1_000_000
TOLERANCE = 50
"""MB by which what daemons use themselves may move the available memory between two looks."""


@pytest.fixture
def memory_limit() -> Iterator[MemoryLimit]:
    """A control group that other steps give their processes to."""
    try:
        limit = MemoryLimit()
    except OSError as exc:
        pytest.skip(f"no control group can be made here ({exc}); tests/unit/hive/test_preflight.py holds the numbers")
    yield limit
    limit.close()


@given(parsers.parse("a machine with {available:d} MB of available memory"))
def _limited(memory_limit: MemoryLimit, machine: Machine, seen: Seen, available: int) -> None:
    """Start hive and queen where that much is left beside what they take themselves."""
    if psutil.virtual_memory().available < (available + 1000) * MEGABYTE:
        pytest.skip(f"there are no {available} MB here; tests/unit/hive/test_preflight.py holds the numbers")
    # The key-value cache of the shortest context: a tenth of a megabyte.
    machine.env |= {"RBEE_WORKER_SLOTS": "1", "RBEE_WORKER_CONTEXT": "16"}
    memory_limit.set(available * MEGABYTE)
    machine.prefix = memory_limit.prefix
    machine.start_hive()
    machine.start_queen()
    machine.prefix = []
    with machine.hive() as hive:
        left = hive.get("/v1/resources").json()["memory"]["available"]
    memory_limit.set(memory_limit.size + available * MEGABYTE - left)
    seen.available = available


@given(parsers.parse("a model file of {size:d} MB"))
def _model_of(tmp_path: Path, seen: Seen, size: int) -> None:
    # Shorter by what its key-value cache will take.
    seen.model = f"file:{make_sparse_model(tmp_path / 'large.gguf', size * MEGABYTE - 100_000)}"


@given("a model file as large as this machine's memory")
def _too_large(tmp_path: Path, seen: Seen) -> None:
    seen.model = f"file:{make_sparse_model(tmp_path / 'large.gguf', psutil.virtual_memory().total)}"


@when("a client asks the hive for a worker and follows what it reports")
def _spawn_told(machine: Machine, seen: Seen) -> None:
    with (
        machine.hive() as hive,
        hive.stream(
            "POST",
            "/v1/workers/spawn",
            json={"model_ref": seen.model, "backend": "cpu", "device": 0},
            headers={"Accept": "text/event-stream"},
        ) as answer,
    ):
        seen.told = [json.loads(data) for data in events(answer)[:-1]]


@then(parsers.parse("it learns that {needed:d} of {available:d} MB are taken, and then of the start on cpu:0"))
def _told_sizes(seen: Seen, needed: int, available: int) -> None:
    sentences = [event["human"] for event in seen.told if "human" in event]
    found = re.search(r"takes (\d+) of (\d+) MB of free RAM", sentences[0])
    assert found, sentences
    assert int(found[1]) == needed
    assert abs(int(found[2]) - available) < TOLERANCE
    assert sentences[1].endswith("on cpu:0")


@then("a worker's process runs")
def _runs(machine: Machine, seen: Seen) -> None:
    (row,) = machine.workers()
    assert seen.told[-1]["worker_id"] == row["id"]
    assert set(machine.worker_processes()) == {row["pid"]}


@when("the user runs infer with it")
def _infer(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("infer", "--model", seen.model, "--prompt", "Hello", "--max-tokens", "3")


@when(parsers.parse("the user runs infer with backend {backend}"))
def _infer_on(machine: Machine, seen: Seen, backend: str) -> None:
    seen.done = machine.run("infer", "--backend", backend, "--prompt", "Hello")


def _sizes(seen: Seen) -> tuple[int, int]:
    text = seen.done.stderr.decode()
    found = re.search(r"^rbee: node local: .* (\d+) MB of RAM, and (\d+) MB are available$", text, re.MULTILINE)
    assert found, text
    return int(found[1]), int(found[2])


@then(parsers.parse("stderr names node local, {needed:d} MB needed and {available:d} MB available"))
def _says_sizes(seen: Seen, needed: int, available: int) -> None:
    said = _sizes(seen)
    assert said[0] == needed
    assert abs(said[1] - available) < TOLERANCE


@then("stderr names node local, what is needed and what is available")
def _says_real_sizes(seen: Seen) -> None:
    needed, available = _sizes(seen)
    total = psutil.virtual_memory().total / MEGABYTE
    assert needed >= 1.2 * total
    assert 0 < available < total


@then("no worker was started")
def _none_started(machine: Machine) -> None:
    assert machine.worker_processes() == {}
    assert machine.workers() == []
    assert not [line for line in machine.hive_log() if "started with pid" in line["message"]]


@when("a client asks the hive to start a worker for it, in vain")
def _spawn_in_vain(machine: Machine, seen: Seen) -> None:
    with machine.hive() as hive:
        seen.answer = hive.post("/v1/workers/spawn", json={"model_ref": seen.model})


@then(parsers.parse("the error is VRAM_EXHAUSTED with {required:d} required and {available:d} available"))
def _error(seen: Seen, required: int, available: int) -> None:
    assert seen.answer.status_code == 503
    error = seen.answer.json()["error"]
    assert error["code"] == "VRAM_EXHAUSTED"
    details = error["details"]
    assert (details["required"], details["resource"]) == (required, "ram")
    assert abs(details["available"] - available) < TOLERANCE


@then(parsers.parse("the worker is listed with backend {backend} and device {device:d}"))
def _listed(machine: Machine, backend: str, device: int) -> None:
    done = machine.run("workers", "list", "--json")
    (row,) = json.loads(done.stdout)["workers"]
    assert (row["backend"], row["device"]) == (backend, device)
