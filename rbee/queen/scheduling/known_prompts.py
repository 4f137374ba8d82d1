"""Remembers which workers have read which beginnings of prompts, and reckons what that is worth (PURE).

A worker that has read the beginning of a conversation has most likely kept it, and need not compute it again. What
counts is when the answer comes: one that is busy, or has no slot free, may still be later than one that reads all of
it. Nothing of a prompt is kept but digests (`prompt_links`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.queen.scheduling.prompt_links import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rbee.queen.scheduling.prompt_links import PromptLinks
    from rbee.wire.hive import WorkerRow
    from rbee.wire.worker import EndedRequest

LEAST: Final = 500
"""Characters below which it does not matter who has read them: about 125 tokens, well under a second."""
ANSWER: Final = 1000
"""Characters that are as much work to read as a usual answer is to write."""
MAX_LINKS_KNOWN: Final = 20_000
"""About 7 MB: 2,000 conversations of ten messages."""
MAX_READERS: Final = 4
"""Workers of which it is known that they have read the same."""
MAX_PATIENCE: Final = 30.0
MEASURED: Final = 4
"""The last requests of a worker by which it is known how fast it reads, and how long one takes."""
LEAST_MEASURED: Final = 64
"""Tokens that a worker has to have read for its speed to be known by it."""
MAX_MEASURED: Final = 1000
MAX_GONE: Final = 1000


@dataclass
class WorkerMeasures:
    """What the last requests of a worker took: characters it read in a second, and seconds in all."""

    pace: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))


class KnownBeginning(NamedTuple):
    """What workers have read of one prompt of about `length` characters before: how many each has `read`.

    Those `hinted` have had other requests that belong to it, which is better than nothing.
    """

    length: int
    read: Mapping[str, int]
    hinted: tuple[str, ...]
    measures: Mapping[str, WorkerMeasures]

    def characters(self, worker_id: str) -> int:
        """Return how many characters of the prompt a worker has read."""
        return self.read.get(worker_id, 0)

    def knows(self, worker_id: str) -> bool:
        """Whether there is a reason to prefer a worker."""
        return worker_id in self.read or worker_id in self.hinted

    def cost(self, worker_id: str, running: int) -> float:
        """Return what the request costs at a worker whose device has so many others to do, in characters to be read.

        Each of them makes it slower by a half: to decode several at once costs less than one after the other.
        """
        known = self.read.get(worker_id, LEAST if worker_id in self.hinted else 0)
        return (max(0, self.length - known) + ANSWER) * (1 + running / 2)

    def patience(self, full: WorkerRow, other: WorkerRow) -> float:
        """Return how many seconds it is worth to wait for a slot of the worker `full`, where `other` has one free.

        At most as long as the other would read what the first one has read already: so the answer is never later than
        twice as late as it could be. Nor is it worth it where slots usually take longer to get free. Of workers that
        have done nothing yet neither is known, and nobody waits.
        """
        more = self.characters(full.id) - self.characters(other.id)
        known, measures = self.measures.get(full.id), self.measures.get(other.id)
        if more < LEAST or known is None or not known.seconds:
            return 0.0
        # The fastest of the last ones: the others may have waited for the model, or beside long prompts.
        if not (pace := max((measures or known).pace or known.pace, default=0.0)):
            return 0.0
        seconds = min(more / pace, MAX_PATIENCE)
        return seconds if fmean(known.seconds) / max(1, full.slots_total) <= seconds else 0.0


class KnownPrompts:
    """Which workers of the swarm have read which beginnings last, and how fast they were."""

    def __init__(self) -> None:
        self._readers: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self._measures: OrderedDict[str, WorkerMeasures] = OrderedDict()
        self._gone: dict[str, None] = {}

    def note(self, prompt: PromptLinks, worker_id: str) -> None:
        """A worker is about to read a prompt."""
        self._note(prompt.session, worker_id)
        for link in prompt.links:
            self._note(link.digest, worker_id)
        while len(self._readers) > MAX_LINKS_KNOWN:
            self._readers.popitem(last=False)

    def _note(self, digest: bytes | None, worker_id: str) -> None:
        if digest is None:
            return
        before = self._present(digest)
        if not before or before[0] != worker_id:
            others = [reader for reader in before if reader != worker_id]
            self._readers[digest] = (worker_id, *others[: MAX_READERS - 1])
        self._readers.move_to_end(digest)

    def of(self, prompt: PromptLinks) -> KnownBeginning | None:
        """Return what workers have read of a prompt, or are about to; None where that is nothing that counts."""
        read: dict[str, int] = {}
        for digest, length in reversed(prompt.links):
            if length < LEAST:
                break
            for reader in self._present(digest):
                read.setdefault(reader, length)
        hinted = () if read or prompt.session is None else self._present(prompt.session)
        return KnownBeginning(prompt.length, read, hinted, self._measures) if read or hinted else None

    def on_ended(self, ended: EndedRequest) -> None:
        """A worker has said what a request came to."""
        if not isinstance(ended.worker_id, str) or ended.is_refusal:
            return
        measures = self._measures.setdefault(ended.worker_id, WorkerMeasures())
        self._measures.move_to_end(ended.worker_id)
        measures.seconds.append(ended.duration_ms / 1e3)
        tokens = ended.prompt_tokens - ended.cached_tokens
        if ended.first_token_ms and tokens >= LEAST_MEASURED:
            measures.pace.append(tokens * CHARACTERS_PER_TOKEN / ended.first_token_ms * 1e3)
        while len(self._measures) > MAX_MEASURED:
            self._measures.popitem(last=False)

    def forget(self, worker_id: str) -> None:
        """A worker has ended, and what it had kept is gone."""
        self._measures.pop(worker_id, None)
        self._gone[worker_id] = None  # no worker gets its id again; to look through all links now would take 3 ms
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def _present(self, digest: bytes) -> tuple[str, ...]:
        """Return the workers that have read this beginning, the last one first."""
        readers = self._readers.get(digest, ())
        if readers and not self._gone.keys().isdisjoint(readers):
            readers = tuple(reader for reader in readers if reader not in self._gone)
        return readers
