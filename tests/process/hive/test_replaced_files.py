"""A model's file that is replaced while a worker has it loaded."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import models
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.conftest import Daemon, Daemons


class Models:
    """A model at a path, and another one that takes its place."""

    def __init__(self, folder: Path) -> None:
        self.path = models.make(folder / "m.gguf", width=512)
        self.new = folder / "new.gguf"
        self.new.write_bytes(self.path.read_bytes() + b"\0")
        os.utime(self.path, (1_000_000_000, 1_000_000_000))


def moved(found: Models) -> None:
    found.new.replace(found.path)


def rewritten_with_the_same_size(found: Models) -> None:
    with found.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")


@pytest.fixture
def start(daemons: Daemons) -> Callable[..., Daemon]:
    return lambda **more: daemons.start("hive", RBEE_WORKER_CONTEXT="64", **more)


def spawned(client: httpx.Client, path: Path) -> dict[str, Any]:
    answer = client.post("/v1/workers/spawn", json={"model_ref": f"file:{path}", "reuse": True})
    found: dict[str, Any] = answer.json()
    return found


def worker(client: httpx.Client, worker_id: str) -> dict[str, Any] | None:
    rows = client.get("/v1/workers/list").json()["workers"]
    return next((row for row in rows if row["id"] == worker_id), None)


def is_idle(client: httpx.Client, worker_id: str) -> bool:
    row = worker(client, worker_id)
    return row is not None and row["state"] == "idle"


def test_the_next_request_gets_a_worker_with_the_new_file(start: Callable[..., Daemon], tmp_path: Path) -> None:
    with start().client() as client:
        for number, replace in enumerate((moved, rewritten_with_the_same_size)):
            folder = tmp_path / str(number) / "models"
            folder.mkdir(parents=True)
            found = Models(folder)
            first = spawned(client, found.path)
            wait_until(lambda: is_idle(client, first["worker_id"]), "the worker has loaded its model")  # noqa: B023
            assert spawned(client, found.path)["worker_id"] == first["worker_id"], replace.__name__
            replace(found)
            second = spawned(client, found.path)
            assert second.get("worker_id") not in (None, first["worker_id"]), replace.__name__
            wait_until(lambda: worker(client, first["worker_id"]) is None, "the old worker has ended")  # noqa: B023
            client.delete(f"/v1/workers/{second['worker_id']}")


def test_a_list_of_workers_shows_at_once_that_one_is_not_for_new_requests(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """And it goes by itself; a file that is gone has no worker either."""
    found = Models(tmp_path)
    with start().client() as client:
        first = spawned(client, found.path)["worker_id"]
        wait_until(lambda: is_idle(client, first), "the worker has loaded its model")
        found.path.touch(mode=0o600)
        os.utime(found.path, (1_000_000_000, 1_000_000_000))
        found.path.chmod(0o400)
        assert is_idle(client, first), "the very file is there"
        found.path.unlink()
        row = worker(client, first)
        assert row is None or row["state"] == "draining"
        wait_until(lambda: worker(client, first) is None, "the worker has ended")
        refused = client.post("/v1/workers/spawn", json={"model_ref": f"file:{found.path}", "reuse": True}).json()
        assert refused["error"]["code"] == "MODEL_NOT_FOUND"


def test_a_worker_of_an_earlier_hive_is_compared_by_its_start(start: Callable[..., Daemon], tmp_path: Path) -> None:
    found = Models(tmp_path)
    daemon = start()
    with daemon.client() as client:
        first = spawned(client, found.path)["worker_id"]
        wait_until(lambda: is_idle(client, first), "the worker has loaded its model")
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    with start().client() as client:
        wait_until(lambda: is_idle(client, first), "the next hive has adopted it")
        assert spawned(client, found.path)["worker_id"] == first
        later = time.time() + 60  # the clocks of processes and files may differ by a second
        os.utime(found.new, (later, later))
        moved(found)
        assert spawned(client, found.path)["worker_id"] != first
