"""Decides which idle workers make room for a model that does not fit beside them (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.wire.common import FOREVER

if TYPE_CHECKING:
    from collections.abc import Collection

    from rbee.hive.workers.record import WorkerRecord, WorkerSpec


class Room(NamedTuple):
    """Which workers are to leave now, and which would once they have no request any more.

    `is_there` says that there is room now, `is_coming` that there will be soon, and that it is to be looked again.
    """

    leaving: list[WorkerRecord]
    is_coming: bool = False
    waits_for: tuple[WorkerRecord, ...] = ()
    is_there: bool = False


def find_room(
    workers: Collection[WorkerRecord],
    spec: WorkerSpec,
    free: int,
    now: float,
    awaited: Collection[str] | None = None,
) -> Room:
    """Return what makes room for `spec`, with `free` bytes left on its device; `awaited` as in `may_leave`.

    No worker with a request leaves, and none leaves in vain: if all idle ones together are not enough, all stay. The
    longest idle go first, and after all others those that a request has asked to stay for ever.
    """
    others = [one for one in workers if one.is_beside(spec)]
    missing = spec.memory - free
    if missing <= 0:
        return Room([], is_there=True)
    missing -= sum(one.spec.memory for one in others if one.phase == "ending")
    if missing <= 0:
        return Room([], is_coming=True)
    idle = sorted(
        (one for one in others if one.may_leave(awaited, now)),
        key=lambda one: (one.keep == FOREVER, one.idle_from or 0.0),
    )
    leaving = []
    for worker in idle:
        leaving.append(worker)
        missing -= worker.spec.memory
        if missing <= 0:
            return Room(leaving, is_coming=True)
    # Those that load serve the request for which they were started next, and have their turn as those that serve.
    busy = tuple(one for one in others if one.phase in ("starting", "loading", "serving") and one not in idle)
    if missing <= sum(one.spec.memory for one in busy):
        return Room([], is_coming=True, waits_for=busy)
    return Room([])
