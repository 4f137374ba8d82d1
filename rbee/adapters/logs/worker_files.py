"""Names the log files of workers, and removes old ones."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_NAME: Final = re.compile(r"worker-(.+?)\.log(?:\.1)?")
_limiter: Final = trio.CapacityLimiter(1)


def name(worker_id: str) -> str:
    return f"worker-{worker_id}.log"


async def remove_old(folder: Path, running: Collection[str], keep: int) -> None:
    """Remove the logs in `folder`, except of `running` workers and of the `keep` that last wrote one.

    Once begun it is not cancelled. What cannot be removed stays, and is tried again the next time.
    """
    await trio.to_thread.run_sync(_remove_old, folder, frozenset(running), keep, limiter=_limiter)


def _remove_old(folder: Path, running: Collection[str], keep: int) -> None:
    files: dict[str, list[Path]] = {}
    written: dict[str, int] = {}
    with suppress(OSError):
        for path in folder.iterdir():
            if (found := _NAME.fullmatch(path.name)) is None or found[1] in running:
                continue
            with suppress(OSError):
                written[found[1]] = max(written.get(found[1], 0), path.stat().st_mtime_ns)
                files.setdefault(found[1], []).append(path)
    for worker_id in sorted(files, key=lambda worker_id: written[worker_id], reverse=True)[keep:]:
        for path in files[worker_id]:
            with suppress(OSError):
                path.unlink()
