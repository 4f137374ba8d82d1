"""Opens the store as the settings say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from rbee.errors import InvalidConfigurationError
from rbee.worker.prefix_store.disk_folder import DiskFolder
from rbee.worker.prefix_store.store import PrefixStore

if TYPE_CHECKING:
    from rbee.adapters.config import CacheSettings

log = logging.getLogger(__name__)

RAM_SHARE: Final = 1 / 10
"""Of what the hive reckons with for a worker: within the fifth that it adds to the size of the weights."""
LEAST_RAM: Final = 16_000_000
MOST_RAM: Final = 1_000_000_000
"""Bounds of that share. What is on the disk is mostly in the system's own cache too, from where it is read in ms."""
FREE_SHARE: Final = 1 / 10
MOST_FREE: Final = 2_000_000_000
"""The share of the machine's memory that stays free for others, and the bytes that suffice on a large one."""


def open_store(settings: CacheSettings, *, block: int | None, model_key: bytes, memory: int) -> PrefixStore | None:
    """Return the store of a model, or None where the settings want none; takes some ms, so call it in a thread.

    `block` is as for PrefixStore, `memory` the bytes that the hive reckons with for this worker. Where the disk cannot
    be used it does without, and the log says why.
    """
    ram = settings.ram_bytes
    if ram is None:
        ram = int(max(LEAST_RAM, min(MOST_RAM, memory * RAM_SHARE)))
    disk = None
    if settings.disk_bytes:
        try:
            disk = DiskFolder(settings.folder, model_key, settings.disk_bytes)
        except (OSError, InvalidConfigurationError) as exc:
            log.warning("prompts are not kept on the disk: %s", exc)
    if not ram and disk is None:
        return None
    return PrefixStore(block=block, ram_bytes=ram, disk=disk, spare_ram=_spare_ram)


def _spare_ram() -> int:
    # psutil is imported with it: not before the worker has called its hive back.
    from rbee.adapters.hardware import inventory

    space = inventory.memory()
    return space.available - int(min(space.total * FREE_SHARE, MOST_FREE))
