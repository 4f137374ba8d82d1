"""What the hive's routes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rbee.adapters.http.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from rbee.adapters.config import Settings
    from rbee.hive.models.library import Library
    from rbee.hive.workers.supervisor import WorkerSupervisor


@dataclass(frozen=True)
class HiveContext(Streams):
    """One hive; `stop` begins its end."""

    settings: Settings
    token: str
    workers: WorkerSupervisor
    library: Library
    nursery: trio.Nursery
    stop: Callable[[], None]
    started_by: Literal["user", "queen"] = "user"
    hive_id: str = ""
