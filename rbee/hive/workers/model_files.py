"""Finds out whether the files of a worker's model are still those that it has loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil
import trio

from rbee.adapters.files import silent_disk
from rbee.hive.catalogue import file_state
from rbee.wire import model_ref

if TYPE_CHECKING:
    from rbee.hive.models.library import Library
    from rbee.hive.workers.record import WorkerRecord

CLOCK_SECONDS: Final = 1.0
"""How far the start of a process and the time of a file may be apart without one being known to be later."""
CHECK_SECONDS: Final = 2.0
"""For the disk to say; one that does not is no reason to end a worker."""


async def are_current(worker: WorkerRecord, library: Library) -> bool:
    """Whether a worker has loaded what its model's reference means now; True where that is not known."""
    ref = model_ref.parse(worker.spec.model_ref)
    with trio.move_on_after(CHECK_SECONDS):
        if ref.provider == "builtin":
            return True  # it is replaced with the program, and not under it
        path = worker.spec.path if ref.provider == "hf" else await library.path_of(ref)
        if worker.spec.files:
            is_same_path = path == worker.spec.path
            return is_same_path and await silent_disk.look(file_state.are_unchanged, worker.spec.files)
        if ref.provider == "file" and worker.pid is not None:
            # An earlier hive has started it, and which file it has loaded is not known.
            return not await silent_disk.look(_is_later, path, worker.pid)
    return True


def _is_later(path: str, pid: int) -> bool:
    """Whether the file has come to its path after the process has started, or is gone."""
    try:
        started_at = psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    changed_at = file_state.changed_at(path)
    return changed_at is None or changed_at > started_at + CLOCK_SECONDS
