"""The callers that wait for a worker to start; several may wait for the same one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rbee.concurrency.outcome import Outcome
from rbee.wire.hive import SpawnReply

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.wire.progress import ProgressEvent, Report


@dataclass(frozen=True)
class Start:
    """One caller: takes progress, and is settled once the worker answers HTTP."""

    report: Report
    outcome: Outcome[SpawnReply] = field(default_factory=Outcome[SpawnReply])


class Starts:
    """The starts that are not settled yet, by the worker's id."""

    def __init__(self) -> None:
        self._starts: dict[str, list[Start]] = {}

    @property
    def worker_ids(self) -> set[str]:
        """The workers that callers wait for."""
        return set(self._starts)

    def add(self, worker_id: str, start: Start) -> None:
        """Have `start` settled with the worker."""
        self._starts.setdefault(worker_id, []).append(start)

    def report(self, worker_id: str, event: ProgressEvent) -> None:
        """Report progress to the callers that wait for a worker."""
        for start in self._starts.get(worker_id, ()):
            start.report(event)

    def settle(self, worker_id: str, result: SpawnReply | RbeeError) -> None:
        """Reply to the callers that wait for a worker."""
        for start in self._starts.pop(worker_id, ()):
            start.outcome.settle(result)
