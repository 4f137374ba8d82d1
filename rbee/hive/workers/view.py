"""Describes a hive's workers in the words of the wire, and what changed between two such views (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.hive.workers import context_fit
from rbee.hive.workers.deadlines import idle_limit
from rbee.wire import hive as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.adapters.config import Timeouts
    from rbee.hive.workers.pool import Pool
    from rbee.hive.workers.record import EndedRecord, WorkerRecord


def workers(pool: Pool) -> wire.WorkerList:
    """Return the workers as they are now, and those that ended without being asked to."""
    return wire.WorkerList(
        workers=[_row(worker, pool.limits) for worker in pool.workers.values()],
        ended=[_ended(ended) for ended in pool.ended if ended.reason is not None],
    )


def spawn_reply(worker: WorkerRecord, key: str) -> wire.SpawnReply:
    """Return the reply to a start, with the key that opens the worker."""
    state = "loading" if worker.phase in ("starting", "loading") else worker.state
    return wire.SpawnReply(worker_id=worker.id, url=worker.url or "", state=state, api_key=key)


def _row(worker: WorkerRecord, limits: Timeouts) -> wire.WorkerRow:
    return wire.WorkerRow(
        id=worker.id,
        url=worker.url or "",
        model_ref=worker.spec.model_ref,
        backend=worker.spec.backend,
        device=worker.spec.device,
        state=worker.state,
        slots_total=worker.spec.slots,
        slots_available=worker.slots_available,
        pid=worker.pid or 0,
        idle_since=worker.idle_since,
        last_health_at=worker.last_health_at,
        context=context_fit.longest_of(worker.spec),
        idle_until=None if worker.idle_since is None else worker.idle_since + idle_limit(worker, limits),
    )


def _ended(ended: EndedRecord) -> wire.EndedWorker:
    worker = ended.worker
    return wire.EndedWorker(
        id=worker.id,
        model_ref=worker.spec.model_ref,
        backend=worker.spec.backend,
        device=worker.spec.device,
        pid=worker.pid or 0,
        reason=ended.reason,
        code=ended.worker.error.code if ended.worker.error is not None else None,
        ended_at=ended.exit.unix,
        log=ended.exit.log,
        last_lines=list(ended.exit.last_lines),
    )


def changes(before: wire.WorkerList | None, now: wire.WorkerList) -> Iterator[tuple[str, wire.HiveEvent]]:
    """Yield the events, name and message, that lead from `before` to `now`; None stands for no view yet."""
    if before is None:
        yield "state", now
        return
    known = {row.id: row for row in before.workers}
    for row in now.workers:
        if known.pop(row.id, None) != row:
            yield "worker", row
    reasons = {ended.id: ended for ended in now.ended}
    for worker_id in known:
        yield "gone", wire.WorkerGone(id=worker_id, ended=reasons.get(worker_id))
