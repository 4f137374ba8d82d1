"""Of the logs of ended workers the newest stay, and nothing else in the folder is touched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rbee.adapters.logs import worker_files

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, name: str, time: int) -> None:
    (folder / name).write_text("x")
    os.utime(folder / name, (time, time))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_the_newest_stay_and_those_of_running_workers(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, worker_files.name(f"w{number}"), 1000 + number)
    await worker_files.remove_old(tmp_path, {"w0"}, 2)
    assert names(tmp_path) == {"worker-w0.log", "worker-w4.log", "worker-w5.log"}


async def test_both_files_of_a_log_go_and_stay_together(tmp_path: Path) -> None:
    for number, worker in enumerate("abc"):
        write(tmp_path, f"worker-{worker}.log.1", 100 + number)
        write(tmp_path, f"worker-{worker}.log", 1000 - number)
    write(tmp_path, "worker-d.log.1", 5000)
    await worker_files.remove_old(tmp_path, {"c"}, 2)
    assert names(tmp_path) == {
        "worker-a.log",
        "worker-a.log.1",
        "worker-c.log",
        "worker-c.log.1",
        "worker-d.log.1",
    }


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    others = {"hive.log", "hive.log.1", "queen.log", "worker.log", "worker-a.txt", "my-worker-a.log", "worker-a.log.2"}
    for name in others:
        write(tmp_path, name, 1)
    (tmp_path / "worker-folder.log").mkdir()
    write(tmp_path, "worker-a.log", 3)
    await worker_files.remove_old(tmp_path, (), 1)
    assert names(tmp_path) >= others


async def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    await worker_files.remove_old(tmp_path / "none", (), 1)
