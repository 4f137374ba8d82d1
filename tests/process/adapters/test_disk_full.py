"""On a full disk inference goes on, errors say so, and everything is written again once there is room."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters.store import ballast
from rbee.adapters.store.sqlite import Store
from rbee.errors import StorageError
from tests.kit import disk as small_disk
from tests.kit.command import run_rbee
from tests.kit.models import make
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

needs_engine = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine")

MODEL = "builtin:bee-stories"
TABLE = "CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT);"


class SmallDisk:
    """A file system of a few MB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filling = folder / "filling"

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Take all the room there is."""
        with self._filling.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        assert self.free == 0

    def empty(self) -> None:
        """Give back what filling took."""
        self._filling.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    small_disk.mount(folder, "size=6m,mode=0700")
    yield SmallDisk(folder)
    small_disk.unmount(folder)


# The database.


def add(number: int) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?, ?)", (number, "y" * 2000))


def delete(number: int) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute("DELETE FROM t WHERE x = ?", (number,))


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x")]


async def test_rows_are_written_and_deleted_on_a_full_disk(disk: SmallDisk) -> None:
    store = await Store.open(disk.folder / "test.db", (TABLE,))
    for number in range(20):
        await store.transact(add(number))
    assert (disk.folder / "test.db.ballast").stat().st_size == ballast.SIZE
    for number in range(20, 60):
        disk.fill()
        await store.transact(add(number))
        disk.fill()
        await store.transact(delete(number - 20))
    assert await store.transact(numbers) == list(range(40, 60))
    await store.close()


async def test_a_disk_without_a_byte_is_an_error_that_goes_away(disk: SmallDisk) -> None:
    store = await Store.open(disk.folder / "test.db", (TABLE,))
    await store.transact(add(1))
    (disk.folder / "test.db.ballast").unlink()
    disk.fill()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"^test\.db: the disk is full$") as caught:
            await store.transact(delete(1))
        assert "free some space" in str(caught.value.hint)
    assert await store.transact(numbers) == [1]
    disk.empty()
    await store.transact(delete(1))
    assert await store.transact(numbers) == []
    assert (disk.folder / "test.db.ballast").stat().st_size == ballast.SIZE
    await store.close()


async def test_a_database_is_opened_again_on_a_full_disk(disk: SmallDisk) -> None:
    store = await Store.open(disk.folder / "test.db", (TABLE,))
    await store.transact(add(1))
    await store.close()
    disk.fill()
    store = await Store.open(disk.folder / "test.db", (TABLE,))
    await store.transact(delete(1))
    assert await store.transact(numbers) == []
    await store.close()


async def test_a_new_database_on_a_full_disk_is_a_clear_error(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(StorageError, match=r"^test\.db cannot be opened: the disk is full$"):
        await Store.open(disk.folder / "test.db", (TABLE,))
    disk.empty()
    store = await Store.open(disk.folder / "test.db", (TABLE,))
    await store.transact(add(1))
    await store.close()


# The swarm.


def rbee(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RBEE_HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"}
    return run_rbee(*arguments, env=environment)


def infer(home: Path, prompt: str = "Once", model: str = MODEL) -> str:
    done = rbee(home, "infer", "--model", model, "--prompt", prompt, "--temperature", "0")
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(home: Path) -> list[str]:
    connection = sqlite3.connect(home / "models.db")
    try:
        return sorted(row[0] for row in connection.execute("SELECT id FROM workers"))
    finally:
        connection.close()


def messages(log: Path) -> list[str]:
    return [json.loads(line)["message"] for line in log.read_text().splitlines() if line.strip()]


def fill_last_page(log: Path) -> None:
    """A file's last page takes lines on a full disk too."""
    with log.open("ab") as file:
        file.write(b"\n" * (-log.stat().st_size % os.sysconf("SC_PAGE_SIZE")))


@needs_engine
def test_a_swarm_goes_on_on_a_full_disk_and_recovers(disk: SmallDisk, daemons: Any, tmp_path: Path) -> None:
    other = f"file:{make(tmp_path / 'tiny.gguf')}"
    home = disk.folder / "rbee"
    queen = daemons.start("queen", home=home)
    text = infer(home)
    (first,) = rows(home)
    for name in ("models", "requests"):  # whose writer gives room up would leave some for the logs
        (home / f"{name}.db.ballast").unlink()
    for log in (home / "logs").iterdir():
        fill_last_page(log)
    disk.fill()
    for _ in range(3):
        assert infer(home) == text, "a warm worker serves"
    assert infer(home, "x", other) == "yz\n", "and so does a new one"
    with queen.client() as client:
        listed = sorted(row["worker_id"] for row in client.get("/v2/workers/list").json()["workers"])
        assert len(listed) == 2
        (second,) = set(listed) - {first}
        log = home / f"logs/worker-{second}.log"
        assert log.stat().st_size == 0
        disk.empty()
        wait_until(lambda: rows(home) == listed)
        assert (home / "models.db.ballast").stat().st_size == ballast.SIZE
        lost, again = messages(home / "logs/hive.log")[-2:]
        assert "lines were lost here" in lost
        assert again == "the registry is written again"
        assert infer(home) == text
        assert infer(home, "x", other) == "yz\n"
    queen.signal()
    assert queen.wait()[0] == 0
    said = messages(log)
    assert "lines were lost here" in said[0]
    assert said[-1] == "the worker has ended"
    assert rows(home) == []


@needs_engine
def test_a_command_that_starts_everything_works_on_a_full_disk_too(disk: SmallDisk) -> None:
    """Where it has worked before: what it has to write fits into the room that it took then."""
    home = disk.folder / "rbee"
    text = infer(home)
    for _ in range(2):
        disk.fill()
        assert infer(home) == text
    disk.empty()
    assert infer(home) == text
    assert (home / "models.db.ballast").stat().st_size == ballast.SIZE


@needs_engine
def test_a_hive_that_died_on_a_full_disk_is_followed_by_one_that_adopts(disk: SmallDisk, daemons: Any) -> None:
    home = disk.folder / "rbee"
    hive = daemons.start("hive", home=home)
    with hive.client() as client:
        worker_id = client.post("/v1/workers/spawn", json={"model_ref": MODEL}).json()["worker_id"]
        wait_until(lambda: rows(home) == [worker_id])
    disk.fill()
    hive.process.kill()
    hive.wait()
    hive = daemons.start("hive", home=home)
    with hive.client() as client:
        wait_until(lambda: [row["id"] for row in client.get("/v1/workers/list").json()["workers"]] == [worker_id])
    hive.signal()
    assert hive.wait()[0] == 0
    assert rows(home) == []


@pytest.mark.parametrize("command", ["up", "infer"])
def test_a_first_start_on_a_full_disk_is_a_clear_error(disk: SmallDisk, command: str) -> None:
    home = disk.folder / "rbee"
    disk.fill()
    done = rbee(home, command, *(["--prompt", "x"] if command == "infer" else []))
    assert (done.returncode, done.stdout) == (1, "")
    *_, said, hint = done.stderr.splitlines()
    assert said.startswith("rbee: ")
    assert str(home) in said + hint
    assert said.endswith(": the disk is full")
    assert hint.startswith("hint: free some space")
    disk.empty()
    assert rbee(home, "token").returncode == 0
