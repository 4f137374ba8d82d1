"""Writes one line of the queen's log for each request, never with any of its text, and no key."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import contained
from rbee.queen.requests.events import Generated

if TYPE_CHECKING:
    from rbee.queen.requests.events import RunEvent
    from rbee.wire.queen import TaskHandle
    from rbee.wire.worker import EndedRequest

log = logging.getLogger(__name__)

WORDS_SECONDS: Final = 2.0
"""For the worker's own account of a request, which comes by its hive, after an answer that was relayed has ended."""
MAX_PLACED: Final = 1000
REFUSALS: Final = 60
"""Lines a minute about requests without a right key: trying keys must not push everything else out of the log."""
MINUTE: Final = 60.0
OK: Final = "ok"
_BARE: Final = re.compile(r"[\w.:/@+%-]+")


@dataclass(eq=False)
class RequestRecord:
    """What is known of one request. Times are seconds of trio's clock; a field that is None does not apply."""

    address: str
    route: str
    correlation_id: str | None
    began: float = field(default_factory=trio.current_time)
    request_id: str | None = None
    status: int = 200
    end: str = OK
    model: str | None = None
    node: str | None = None
    worker: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    placed: float | None = None
    first_token: float | None = None
    relayed: bool | None = None
    is_stream: bool = False
    """Whether it ends with its stream, and not with its answer."""
    is_step: bool = False
    """Whether it is a step of something that has its line already: written with `--debug` alone, unless it fails."""
    is_over: bool = False
    """Whether the queen has no more to do with it."""
    is_explained: bool = False
    """Whether its worker has said what came of it."""
    follows_refusal: bool = False
    """Whether its worker has yet to say that it refused the request before: that is not the end of this try."""
    refusal: str | None = None
    """Why its worker has refused it; of one that is not relayed it is written down: its client may ask again."""

    def on_placed(self, handle: TaskHandle) -> None:
        """A worker has it."""
        self.node, self.worker, self.relayed = handle.node, handle.worker_id, handle.relayed
        self.placed = trio.current_time()
        self.is_explained, self.refusal = False, None

    def on_event(self, event: RunEvent) -> None:
        """It is answered with this event next."""
        if not isinstance(event, Generated):
            self.on_placed(event)
        elif self.first_token is None and event.data.startswith('{"token"'):
            self.first_token = trio.current_time()

    def on_ended(self, ended: EndedRequest) -> None:
        """The worker has said what came of it."""
        now, self.is_explained = trio.current_time(), True
        self.prompt_tokens, self.tokens, self.end = ended.prompt_tokens, ended.total_tokens, ended.end
        if self.first_token is None and ended.first_token_ms is not None:
            self.first_token = now - (ended.duration_ms - ended.first_token_ms) / 1e3

    def line(self) -> str:
        """Return the line: words of the form name=value, those that apply."""
        ended = trio.current_time()
        values = {
            "id": self.request_id or self.correlation_id,
            "address": self.address,
            "route": self.route,
            "status": self.status,
            "model": self.model,
            "node": self.node,
            "worker": self.worker,
            "relayed": None if self.relayed is None else "yes" if self.relayed else "no",
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "queue_ms": self._milliseconds(self.placed),
            "first_token_ms": self._milliseconds(self.first_token),
            "total_ms": self._milliseconds(ended),
            "end": self.end,
        }
        return "request " + " ".join(
            f"{name}={_quoted(str(value))}" for name, value in values.items() if value is not None
        )

    def _milliseconds(self, at: float | None) -> int | None:
        return None if at is None else round((at - self.began) * 1e3)


class RequestLog:
    """The requests of one queen that are not written down yet: their workers have them."""

    def __init__(self) -> None:
        self._placed: dict[str, RequestRecord] = {}
        self._refusals = 0
        self._refused_since = 0.0

    def write(self, record: RequestRecord, *, quietly: bool = False) -> None:
        """Write the line of a request that is over; `quietly` where somebody only looks, again and again."""
        if record.status == 401 and not self._may_write_refusal():
            return
        set_back = correlation.set(record.correlation_id)  # this may be called by another task than the request's own
        try:
            is_quiet = quietly or (record.is_step and record.end == OK)
            log.log(logging.DEBUG if is_quiet else logging.INFO, "%s", record.line())
        finally:
            correlation.reset(set_back)

    def on_placed(self, record: RequestRecord) -> None:
        """A worker has the request, and will say what came of it."""
        assert record.request_id is not None
        before = self._placed.pop(record.request_id, None)
        if before is not None and before is not record:
            record.follows_refusal = before.worker == record.worker and before.refusal is None
            self._give_up(before, "placed again")
        self._placed[record.request_id] = record
        while len(self._placed) > MAX_PLACED:
            self._give_up(self._placed.pop(next(iter(self._placed))), "not known")

    async def finish(self, record: RequestRecord) -> None:
        """The queen has relayed the whole answer: write the line, with what the worker says if that comes soon."""
        record.is_over = True
        with contained("the line of a request"):
            if not record.is_explained:
                if record.refusal != record.end:
                    await trio.sleep(WORDS_SECONDS)
                if self._placed.get(record.request_id or "") is not record:
                    return
                del self._placed[record.request_id or ""]
            self.write(record)

    def on_ended(self, ended: EndedRequest) -> None:
        """A worker has reported the end of a request."""
        record = self._placed.get(ended.request_id)
        if record is None or ended.worker_id not in (UNSET, record.worker):
            return  # nobody waits for it any more, or it is the end of an earlier try, elsewhere
        if ended.is_refusal:
            self._on_refused(record, ended)
            return
        del self._placed[ended.request_id]
        record.on_ended(ended)
        if record.is_over or not record.relayed:
            self.write(record)

    def _on_refused(self, record: RequestRecord, ended: EndedRequest) -> None:
        """The worker did not take the request, or an earlier try of it: a further one may follow, or run already."""
        if record.relayed:
            # The queen has had the refusal itself, and has tried again unless that was the request's end.
            record.refusal = ended.end
            if record.is_over and record.end == ended.end:
                del self._placed[ended.request_id]
                self.write(record)
        elif record.follows_refusal:
            record.follows_refusal = False
        elif record.refusal is None:
            record.refusal = record.end = ended.end
            self.write(record)
            record.end = OK

    def on_gone(self, worker_id: str) -> None:
        """A worker has ended, and says nothing any more."""
        for request_id in [name for name, record in self._placed.items() if record.worker == worker_id]:
            self._give_up(self._placed.pop(request_id), "the worker ended")

    def close(self) -> None:
        """The queen ends."""
        for record in self._placed.values():
            self._give_up(record, "the queen ended")
        self._placed.clear()

    def _give_up(self, record: RequestRecord, why: str) -> None:
        if record.refusal is not None and not record.relayed:
            return  # there is a line already
        if record.end == OK:
            record.end = why
        self.write(record)

    def _may_write_refusal(self) -> bool:
        now = trio.current_time()
        if now - self._refused_since >= MINUTE:
            if (missed := self._refusals - REFUSALS) > 0:
                log.warning("%d more requests without a right key were refused within a minute", missed)
            self._refusals, self._refused_since = 0, now
        self._refusals += 1
        return self._refusals <= REFUSALS


def _quoted(value: str) -> str:
    return value if _BARE.fullmatch(value) else json.dumps(value)
