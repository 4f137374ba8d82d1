"""Decides which worker of a node serves a request (PURE); which node, rbee.queen.scheduling.choose_node does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rbee.wire.hive import WorkerRow


class Wanted(NamedTuple):
    """What a request needs; None takes any backend, device or context. `model_ref` is in canonical form."""

    model_ref: str
    backend: str | None
    device: int | None
    context: int | None = None


_ORDER: Final = {"idle": 0, "loading": 1, "busy": 2}
"""States in which a worker may be given a request, the best first.

A worker that loads comes before a busy one: it will have slots. A busy one may still have a free slot, and when it has
none, it says so at once; to start a second copy of a model is the user's decision, not ours.
"""


def choose_worker(workers: Iterable[WorkerRow], wanted: Wanted) -> WorkerRow | None:
    """Return the worker that should serve the request, or None when one has to be started."""
    return next(iter(fitting(workers, wanted)), None)


def fitting(workers: Iterable[WorkerRow], wanted: Wanted) -> list[WorkerRow]:
    """Return the workers that can serve the request, the best first."""
    found = [worker for worker in workers if _fits(worker, wanted)]
    return sorted(found, key=lambda worker: (_ORDER[worker.state], -worker.slots_available))


def _fits(worker: WorkerRow, wanted: Wanted) -> bool:
    return (
        worker.model_ref == wanted.model_ref
        and worker.state in _ORDER
        and worker.url != ""
        and wanted.backend in (None, worker.backend)
        and wanted.device in (None, worker.device)
        and (wanted.context is None or worker.context is None or wanted.context <= worker.context)
    )
