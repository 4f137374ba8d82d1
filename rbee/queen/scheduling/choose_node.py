"""Decides which node takes a request whose user has named none (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.errors import AllSlotsBusyError, CancelledError, ConnectionTimeoutError, InvalidRequestError
from rbee.narrower_errors import LineFullError
from rbee.queen.scheduling.choose_worker import fitting
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rbee.errors import RbeeError
    from rbee.queen.hives.mirror import Devices
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.known_prompts import KnownBeginning
    from rbee.wire.hive import WorkerRow
    from rbee.wire.model_copy import FileStat

CPU: Final = "cpu"
ALIKE: Final = 0.8
"""Nodes with so much of the most free memory are alike in this: it changes from moment to moment."""


class Candidate(NamedTuple):
    """A node and what is known of it; one whose hive does not run has no workers, and no model that is known of.

    `file` is what the path of a user's own file means there.
    """

    node: str
    is_running: bool
    workers: Sequence[WorkerRow]
    devices: Devices
    has_model: bool = False
    file: FileStat | None = None


class Choice(NamedTuple):
    """A node, and in words why it. It `has_worker` where one runs; where that `is_full`, requests wait for a slot.

    For `patience` seconds a request waits for that worker alone: it has read the beginning of its prompt.
    """

    node: str
    is_running: bool
    reason: str
    is_full: bool = False
    patience: float = 0.0
    has_worker: bool = False


def rank(candidates: Sequence[Candidate], wanted: Wanted, known: KnownBeginning | None = None) -> list[Choice]:
    """Return the nodes that may take the request, the best first; always at least one of them.

    A worker with a free slot comes first, an idle one before others, then one that loads; then free memory, where nodes
    are alike an accelerator, the model on the disk, and `local`. A worker without a free slot comes last: another node
    serves at once. A worker that has read the beginning of the prompt (`known`) comes before all others, unless one of
    these would answer sooner. A user's own file is that of the queen's host, and of nodes that have the same; others
    get it only if none of these can take the request.
    """
    own = next((one for one in candidates if one.node == LOCAL_NODE), None)
    if own is not None and wanted.model_ref.startswith("file:"):
        having = [one for one in candidates if one is own or _has_same(one, own.file, wanted)]
        if own.file is None or any(_can_start(one, wanted) for one in having):
            candidates = having
    warm = sorted((rank, candidate) for candidate in candidates if (rank := _warmth(candidate, wanted)) is not None)
    running = [
        Choice(one.node, one.is_running, reason, is_full=rank > _LOADING, has_worker=True)
        for (rank, *_, reason), one in warm
    ]
    ready = [choice for choice in running if not choice.is_full]
    full = [choice for choice in running if choice.is_full]
    taken = {choice.node for choice in (*ready, *full)}
    cold = [one for one in candidates if one.node not in taken and _can_start(one, wanted)]
    found = [*ready, *_by_memory(cold, wanted), *full]
    if found:
        return found if known is None else _reader_first(found, candidates, wanted, known)
    # None can: the queen's own host says best what there is, for that is where its user is.
    own = next((one for one in candidates if one.node == LOCAL_NODE), candidates[0])
    return [Choice(own.node, own.is_running, "no node has what was asked for")]


def _reader_first(
    choices: list[Choice], candidates: Sequence[Candidate], wanted: Wanted, known: KnownBeginning
) -> list[Choice]:
    """Put the node first whose worker has read the beginning of the prompt, where that lets the answer come sooner."""
    nodes = {one.node: one for one in candidates}
    workers = [(choice, row) for choice in choices for row in fitting(nodes[choice.node].workers, wanted)]
    if not workers or workers[0][0] is not choices[0]:
        return choices  # one is started
    able = [(choice, row) for choice, row in workers if _takes(row)]
    full = max(
        (one for one in workers if not _takes(one[1])), key=lambda one: known.characters(one[1].id), default=None
    )
    best = None
    if able:
        found = [able[0], *(one for one in able if known.knows(one[1].id))]
        best = min(found, key=lambda one: known.cost(one[1].id, _running(nodes[one[0].node], one[1])))
    if full is not None:
        others = [one for one in workers if one[0] is not full[0]] if best is None else [best]
        other = max(others, key=lambda one: known.characters(one[1].id), default=full)
        if other[0] is not full[0] and (patience := known.patience(full[1], other[1])):
            return _first(choices, full[0], "waiting for a worker there, which has read the beginning", patience)
    if best is None or best[0] is choices[0]:
        return choices
    is_read = known.characters(best[1].id) > 0
    reason = "a worker there has read the beginning" if is_read else "a worker there has had requests of this session"
    return _first(choices, best[0], reason)


def _first(choices: list[Choice], choice: Choice, reason: str, patience: float = 0.0) -> list[Choice]:
    others = [one for one in choices if one is not choice]
    return [choice._replace(reason=reason, patience=patience), *others]


def _takes(worker: WorkerRow) -> bool:
    return worker.slots_available > 0 or worker.state == "loading"


def _running(candidate: Candidate, worker: WorkerRow) -> int:
    """Return how many requests the device of a worker has to do."""
    return sum(
        one.slots_total - one.slots_available
        for one in candidate.workers
        if (one.backend, one.device) == (worker.backend, worker.device) and one.state in ("idle", "busy")
    )


def remaining(choices: list[Choice], tried: Choice, error: RbeeError, *, may_try_again: bool = False) -> list[Choice]:
    """Return which of the other nodes may take a request that one could not take; none means that it has failed.

    Of a node whose hive runs, the reason is for the user to know, unless there is a worker elsewhere to wait for, or
    the request `may_try_again` on another node what is no fault of its own.
    """
    if isinstance(error, AllSlotsBusyError):
        return choices if isinstance(error, LineFullError) else []  # the time to wait is over
    if not tried.is_running or isinstance(error, ConnectionTimeoutError):
        return choices
    if isinstance(error, CancelledError | InvalidRequestError):
        return []
    return choices if may_try_again else [choice for choice in choices if choice.is_full]


def _has_same(candidate: Candidate, file: FileStat | None, wanted: Wanted) -> bool:
    """Whether a node has the user's file as it is on the queen's host, or has it where that host does not.

    A hive of an earlier version does not say so: its workers are believed.
    """
    if candidate.file is None:
        return bool(fitting(candidate.workers, wanted))
    return file is None or candidate.file == file


def is_served(choices: Iterable[Choice]) -> bool:
    """Return whether a worker that runs somewhere takes the request, so that none has to be started."""
    return any(choice.has_worker and not choice.is_full for choice in choices)


_IDLE: Final = 0
_FREE: Final = 1
_LOADING: Final = 2
_FULL: Final = 3


def _warmth(candidate: Candidate, wanted: Wanted) -> tuple[int, bool, int, str, str] | None:
    """Return how good the best worker is that runs there, the lower the better, and last in words."""
    if not (workers := fitting(candidate.workers, wanted)):
        return None
    free = max(worker.slots_available for worker in workers)
    states = {worker.state for worker in workers}
    if "idle" in states:
        rank, reason = _IDLE, f"a worker with {wanted.model_ref} is idle there"
    elif free > 0:
        rank, reason = _FREE, f"a worker with {wanted.model_ref} has a free slot there"
    elif "loading" in states:
        rank, reason = _LOADING, f"a worker there loads {wanted.model_ref} already"
    else:
        rank, reason = _FULL, "no other node can take it, and its workers are busy"
    return rank, candidate.node != LOCAL_NODE, -free, candidate.node, reason


def _can_start(candidate: Candidate, wanted: Wanted) -> bool:
    devices = _suitable(candidate, wanted)
    return any(len(free) > (wanted.device or 0) for free in devices.values())


def _suitable(candidate: Candidate, wanted: Wanted) -> Devices:
    return {name: free for name, free in candidate.devices.items() if wanted.backend in (None, name)}


def _free_memory(candidate: Candidate, wanted: Wanted) -> int | None:
    """Return the free memory of the best suitable device, if that is known."""
    known = [
        free
        for devices in _suitable(candidate, wanted).values()
        for index, free in enumerate(devices)
        if free is not None and wanted.device in (None, index)
    ]
    return max(known, default=None)


def _by_memory(candidates: Sequence[Candidate], wanted: Wanted) -> list[Choice]:
    memory = {one.node: _free_memory(one, wanted) for one in candidates}
    most = max((free for free in memory.values() if free is not None), default=0)

    def order(one: Candidate) -> tuple[object, ...]:
        free = memory[one.node]
        is_alike = free is not None and free >= ALIKE * most
        has_accelerator = any(name != CPU and devices for name, devices in _suitable(one, wanted).items())
        return (
            free is None,
            not is_alike,
            0 if is_alike or free is None else -free,
            not has_accelerator,
            not one.has_model,
            one.node != LOCAL_NODE,
            not one.is_running,
            one.node,
        )

    return [Choice(one.node, one.is_running, _why(one, memory[one.node])) for one in sorted(candidates, key=order)]


def _why(candidate: Candidate, free: int | None) -> str:
    why = "its hive can be started" if free is None else f"{free / 1e9:.1f} GB of memory are free there"
    return f"{why}, and the model is on its disk" if candidate.has_model else why
