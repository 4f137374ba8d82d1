"""What is known of one request while it runs and when it is over; never its text, and no key."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import InvalidRequestError
from rbee.queen.access.identity import CallerIdentity
from rbee.queen.requests.events import Generated
from rbee.wire.administration.requests import RequestInfo, RequestStep, RequestStory
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.queen.requests.events import RunEvent
    from rbee.wire.progress import ProgressEvent, Report
    from rbee.wire.queen import TaskHandle
    from rbee.wire.worker import EndedRequest

OK: Final = "ok"
MAX_STEPS: Final = 40
"""Steps that are kept of one request; of a longer story the last ones give way to its end."""
MAX_STEP: Final = 300
"""Characters of one step."""
_BARE: Final = re.compile(r"[\w.:/@+%-]+")
_TEXT: Final = ('{"token"', '{"type":"text"', '{"type":"reasoning"', '{"type":"tool_call"')
"""How the first event begins that is a piece of an answer."""


@dataclass(eq=False)
class RequestRecord:
    """One request. Times are seconds of trio's clock; a field that is None does not apply."""

    address: str
    route: str
    correlation_id: str | None
    began: float = field(default_factory=trio.current_time)
    began_unix: float = field(default_factory=time.time)
    identity: CallerIdentity = field(default_factory=lambda: CallerIdentity("public", ""))
    request_id: str | None = None
    status: int = 200
    end: str = OK
    model: str | None = None
    node: str | None = None
    worker: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    tokens: int | None = None
    placed: float | None = None
    first_token: float | None = None
    ended: float | None = None
    relayed: bool | None = None
    is_for_text: bool = False
    """Whether a model is to write something for it."""
    is_stream: bool = False
    """Whether it ends with its stream, and not with its answer."""
    awaits_stream: bool = False
    """Whether nothing has begun yet to produce that stream."""
    is_step: bool = False
    """Whether it is a step of something that has its line already: written with `--debug` alone, unless it fails."""
    is_over: bool = False
    """Whether the queen has no more to do with it."""
    is_closed: bool = False
    """Whether its line is written, and nothing of it changes any more."""
    is_explained: bool = False
    """Whether its worker has said what came of it."""
    follows_refusal: bool = False
    """Whether its worker has yet to say that it refused the request before: that is not the end of this try."""
    failure: str | None = None
    """What its error said, for its story alone; never what was asked."""
    refusal: str | None = None
    """Why its worker has refused it; of one that is not relayed it is written down: its client may ask again."""
    steps: list[RequestStep] = field(default_factory=list)

    @property
    def id(self) -> str:
        """What it is known by."""
        return self.request_id or self.correlation_id or ""

    @property
    def caller(self) -> str | None:
        """Whose it is, for people; None where nobody was let in."""
        return self.identity.name or None

    def step(self, human: str) -> None:
        """Something happened to it."""
        if len(self.steps) >= MAX_STEPS:
            del self.steps[MAX_STEPS // 2]
        self.steps.append(RequestStep(ms=self._milliseconds(trio.current_time()) or 0, human=human[:MAX_STEP]))

    def reporting(self, report: Report) -> Report:
        """Return `report` such that what is narrated becomes a part of the story."""

        def both(event: ProgressEvent) -> None:
            if isinstance(event, Narration):
                self.step(event.human)
            report(event)

        return both

    def on_placed(self, handle: TaskHandle) -> None:
        """A worker has it."""
        self.node, self.worker, self.relayed = handle.node, handle.worker_id, handle.relayed
        self.placed = trio.current_time()
        self.is_explained, self.refusal = False, None
        way = "which the queen relays" if handle.relayed else "which the caller asks itself"
        self.step(f"Placed on {handle.node}: worker {handle.worker_id}, {way}")

    def on_event(self, event: RunEvent) -> None:
        """It is answered with this event next."""
        if not isinstance(event, Generated):
            self.on_placed(event)
        elif self.first_token is None and event.data.startswith(_TEXT):
            self.first_token = trio.current_time()
            self.step("The first token is there")

    def on_ended(self, ended: EndedRequest) -> None:
        """The worker has said what came of it."""
        now, self.is_explained = trio.current_time(), True
        self.prompt_tokens, self.tokens, self.end = ended.prompt_tokens, ended.total_tokens, ended.end
        self.cached_tokens = ended.cached_tokens
        if self.first_token is None and ended.first_token_ms is not None:
            self.first_token = now - (ended.duration_ms - ended.first_token_ms) / 1e3

    def on_failed(self, error: RbeeError) -> None:
        """It is answered with an error."""
        self.end = error.code
        # What is said of a wrong request names its fields, which may be anything.
        self.failure = None if isinstance(error, InvalidRequestError) else error.message

    def close(self) -> None:
        """It is over, now if it was not before."""
        if self.ended is None:
            self.ended = trio.current_time()
        self.step(self._outcome())
        self.is_closed = True

    def _outcome(self) -> str:
        tokens = "" if self.tokens is None else f", after {self.tokens} tokens"
        why = "" if self.failure is None else f": {self.failure}"
        return f"Ended: {self.end}{tokens}{why}"

    def info(self) -> RequestInfo:
        """Return what is known of it, for people and programs."""
        return RequestInfo(
            id=self.id,
            caller=self.caller,
            address=self.address,
            route=self.route,
            began_unix=self.began_unix,
            status=self.status,
            model=self.model,
            node=self.node,
            worker=self.worker,
            relayed=self.relayed,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            tokens=self.tokens,
            queue_ms=self._milliseconds(self.placed),
            first_token_ms=self._milliseconds(self.first_token),
            total_ms=self._milliseconds(self.ended),
            end=None if self.ended is None else self.end,
        )

    def story(self) -> RequestStory:
        steps = list(self.steps)
        if self.ended is not None and not self.is_closed:  # its worker has yet to say what it took
            steps.append(RequestStep(ms=self._milliseconds(self.ended) or 0, human=self._outcome()[:MAX_STEP]))
        return RequestStory(request=self.info(), steps=steps, state="running" if self.ended is None else "ended")

    def line(self) -> str:
        """Return the line of the log: words of the form name=value, those that apply."""
        info = self.info()
        values = {
            "id": info.id or None,
            "address": info.address,
            "key": info.caller,
            "route": info.route,
            "status": info.status,
            "model": info.model,
            "node": info.node,
            "worker": info.worker,
            "relayed": None if info.relayed is None else "yes" if info.relayed else "no",
            "prompt_tokens": info.prompt_tokens,
            "cached_tokens": info.cached_tokens,
            "tokens": info.tokens,
            "queue_ms": info.queue_ms,
            "first_token_ms": info.first_token_ms,
            "total_ms": info.total_ms,
            "end": self.end,
        }
        return "request " + " ".join(
            f"{name}={_quoted(str(value))}" for name, value in values.items() if value is not None
        )

    def _milliseconds(self, at: float | None) -> int | None:
        return None if at is None else round((at - self.began) * 1e3)


def _quoted(value: str) -> str:
    return value if _BARE.fullmatch(value) else json.dumps(value)
