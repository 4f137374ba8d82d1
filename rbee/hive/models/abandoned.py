"""Removes what is left of downloads and pushes that nobody has gone on with for weeks."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.download.partial_file import PartialFile
from rbee.hive.catalogue.folder import FILE_FOLDER, HF_FOLDER
from rbee.wire.progress import size

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

DAYS: Final = 30
"""As long it is resumed. Gigabytes that nobody has missed for that long are more often forgotten than wanted."""
LOOK_SECONDS: Final = 86_400.0
_PART: Final = ".gguf.part"


async def keep_removing(models_dir: Path) -> None:
    """Look now, and then each day, until cancelled."""
    while True:
        await trio.to_thread.run_sync(remove, models_dir, time.time(), abandon_on_cancel=True)
        await trio.sleep(LOOK_SECONDS)


def remove(models_dir: Path, now: float) -> None:
    """Remove the partial files that nobody holds, and to which nothing was written for DAYS; others' files stay."""
    for below in (HF_FOLDER, FILE_FOLDER):
        for path in sorted((models_dir / below).rglob(f"*{_PART}")):
            with suppress(OSError):
                if now - path.stat().st_mtime >= DAYS * 86_400:
                    _remove(path, models_dir, now)


def _remove(path: Path, models_dir: Path, now: float) -> None:
    count = path.stat().st_size
    with PartialFile(path.with_name(path.name.removesuffix(".part"))) as part:
        if not part.lock() or now - path.stat().st_mtime < DAYS * 86_400:
            return  # somebody has just gone on with it
        part.discard()
    log.info("removed %s (%s): nobody has gone on with it for %d days", path, size(count), DAYS)
    for folder in path.parents:
        if folder == models_dir:
            break
        folder.rmdir()  # raises where something else is in it
