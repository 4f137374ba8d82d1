"""What a node's scheduler is asked for, and what it remembers of that until the answer (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rbee.errors import RbeeError
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.prompt_links import PromptLinks
    from rbee.wire.common import WorkerState
    from rbee.wire.progress import Report

RETRY_PAUSES: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds before a request is placed once more: the first time at once, then with more and more patience.

What its hive answers and what the event stream shows may differ for a while, and a hive that ends takes its time:
without pauses, one request would ask thousands of times.
"""

MOST_OF_WAIT: Final = 0.5
"""The part of its time that a request waits for a worker which has read the beginning, while another one is free."""


def retry_pauses() -> Iterator[float]:
    """Yield the pause before each further try."""
    return chain(RETRY_PAUSES, repeat(RETRY_PAUSES[-1]))


class Placed(NamedTuple):
    """A worker that serves a request; `node` is its node where that is another one than was asked."""

    worker_id: str
    url: str
    state: WorkerState
    node: str | None = None


@dataclass(eq=False, slots=True)
class PlaceRequest:
    """A request for a worker; `wait` is how many seconds it would wait for a slot, and `caller` whose turn it is then;
    one that `is_batch` lets all others go first. `prompt` is what its prompt is known by.

    With `may_move` a worker of another node does as well, from `stays_until` on where that is given.
    `report` takes what happens meanwhile, and `answer` the end, once. The rest is the scheduler's own.
    """

    wanted: Wanted
    wait: float
    report: Report
    answer: Callable[[Placed | RbeeError], None]
    correlation_id: str | None = None
    may_move: bool = False
    caller: str = "local"
    is_batch: bool = False
    prompt: PromptLinks | None = None
    stays_until: float | None = None
    since: float | None = None
    """When it has come to the queen, where that is not now: it may have been placed in vain before."""
    successor_by: float | None = None
    """Until when it waits for the hive that follows one which ends."""
    waits_until: float | None = None
    """Until when it waits for a slot, once it has begun to."""
    told_ahead: int | None = None
    """How many it has been told are before it in the line for a slot."""
    known: int = 0
    """About how many characters of its prompt have been read before by the worker that it is sent to, or, while it
    waits, by any."""
    must_ask: bool = False
    """Whether the hive itself is asked for its workers: what its event stream showed has not been enough."""
    pauses: Iterator[float] = field(default_factory=retry_pauses)

    @property
    def waits_since(self) -> float:
        """When it has come, or began to wait for a slot; of one that has not, when there was time."""
        if self.since is not None:
            return self.since
        return 0.0 if self.waits_until is None else self.waits_until - self.wait

    @property
    def knowledge(self) -> str:
        """What the worker that it is sent to has read of it before, in words; empty where that does not count."""
        if self.prompt is None or not self.known:
            return ""
        return f"; it has read the first {self.known} of about {self.prompt.length} characters before"


@dataclass(eq=False, slots=True)
class HiveRequest:
    """A request for the node's hive, which is started if need be; the answer is the hive's URL."""

    report: Report
    answer: Callable[[str | RbeeError], None]
    correlation_id: str | None = None


AnyRequest = PlaceRequest | HiveRequest
