"""Takes inference requests from their arrival to a running job."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio
from msgspec import UNSET

from rbee.concurrency.background import cancel_when
from rbee.errors import AllSlotsBusyError, CancelledError, DrainingError, InvalidRequestError, RbeeError
from rbee.narrower_errors import TooManyTokensError
from rbee.wire.worker import FullContext
from rbee.worker.chat.chat import open_chat
from rbee.worker.engine.batching import LONGEST_PAUSE
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.slots import Slots
from rbee.worker.prefix_store.figures import figures
from rbee.worker.serving.answer_plan import AnswerPlanner
from rbee.worker.serving.echo import EchoedPrompt
from rbee.worker.serving.prompt_reader import PromptReader
from rbee.worker.status.metrics import WorkerMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.wire.worker import InferenceRequest
    from rbee.worker.engine.backend import Backend, Constraint
    from rbee.worker.engine.slots import JobHandle
    from rbee.worker.prefix_store.store import PrefixStore
    from rbee.worker.serving.answer_plan import AnswerPlan
    from rbee.worker.status.status import Status

CANCEL_ALL_SECONDS: Final = 2.0
SEEDS: Final = 2**32 - 1
"""So many there are, from 0 on: see `wire.common.Sampling`."""


class ReadRequest(NamedTuple):
    """A request's tokens; where its answer is typed, how that is read, and what its first choice is held to.

    `echo` is what stands before each choice, and `salt` that of the job (`engine.sequence.Job`).
    """

    tokens: list[int]
    plan: AnswerPlan | None = None
    constraint: Constraint | None = None
    echo: EchoedPrompt = EchoedPrompt()
    salt: bytes = b""


class BegunRequest(NamedTuple):
    """A request whose first job has been started."""

    job: JobHandle
    read: ReadRequest


@dataclass(frozen=True, slots=True)
class LoadedService:
    """What serves requests of up to `length` tokens once the model is loaded."""

    length: int
    trained_length: int
    engine: Engine
    prompts: PromptReader
    planner: AnswerPlanner
    slots: Slots
    _preparing: dict[str, trio.CancelScope] = field(default_factory=dict)

    def check(self, request: InferenceRequest, request_id: str) -> None:
        """Raise what can be known before the prompt is read."""
        if not request.is_typed and request.max_tokens is not UNSET and request.max_tokens > self.length:
            raise TooManyTokensError(
                f"field max_tokens: at most {self.length}, the context's length",
                hint="leave it out: then the model ends its text, or the end of the context does",
                field="max_tokens",
                rule=f"<= {self.length}",
                context=self.length,
            )
        if request.is_typed and not request.stream:
            raise InvalidRequestError(
                "field stream: true, since what is typed is a stream of events", field="stream", rule="true"
            )
        self.prompts.check_bias(request)
        self.slots.check_new(request_id, self._preparing)
        self.slots.check_slot()

    async def read(self, request: InferenceRequest, request_id: str) -> ReadRequest:
        """Return the prompt's tokens, and how the answer is read. Raises InvalidRequestError.

        After `cancel` it raises CancelledError.
        """
        with self.preparing(request_id):
            return await self._read(request)
        raise AssertionError  # the block raises or returns

    @contextmanager
    def preparing(self, request_id: str) -> Iterator[None]:
        """Prepare a job of a request in the block, which raises CancelledError after `cancel`."""
        scope = self._preparing[request_id] = trio.CancelScope()
        try:
            with scope:
                yield
        finally:
            del self._preparing[request_id]
        if scope.cancelled_caught:
            raise CancelledError("the request was cancelled")

    async def _read(self, request: InferenceRequest) -> ReadRequest:
        prompt = await self.prompts.read_request(request)
        if not request.is_typed:
            return ReadRequest(prompt.tokens)
        plan = await self.planner.plan(request, prompt.history)
        echo = self.prompts.echoed(request, prompt.tokens)
        return ReadRequest(prompt.tokens, plan, await self.planner.constraint(plan), echo)

    def start(self, request: InferenceRequest, request_id: str, read: ReadRequest) -> JobHandle:
        """Start the job, of no more tokens than there is room for. Raises AllSlotsBusyError or InvalidRequestError."""
        room = self.length - len(read.tokens)
        limit = room if request.max_tokens is UNSET else min(request.max_tokens, room)
        return self.slots.start(
            self.engine,
            request_id,
            read.tokens,
            # Stop strings end the answer, and not the thoughts before it: its parser looks for them.
            request if read.plan is None else msgspec.structs.replace(request, stop=None),
            limit,
            constraint=read.constraint,
            shows_control=read.plan is not None and read.plan.shows_control,
            scored=read.echo.scored,
            salt=read.salt,
            uses_cache=request.cache is not False,
        )

    def cancel(self, request_id: str) -> None:
        """Cancel a request whose prompt is being read, or whose next choice waits for a slot."""
        if (preparing := self._preparing.get(request_id)) is not None:
            preparing.cancel()


class Service:
    """The worker's answers to requests, from its start to its end."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.metrics = WorkerMetrics(status)
        self._slots = Slots(status, self.metrics)
        self._loaded: LoadedService | None = None

    async def run(
        self,
        backend: Backend,
        store: PrefixStore | None = None,
        *,
        guesses: bool = True,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        """Serve requests until cancelled; raises EngineFailedError.

        What was computed of prompts is kept in `store`, which the caller closes; the rest are options of the engine.
        """
        if store is not None:
            self.metrics.of_prefixes = partial(figures, store)
        async with open_chat(backend.vocabulary) as chat:
            engine = Engine(backend, self._slots.deliver, store, guesses=guesses, longest_pause=longest_pause)
            self._loaded = LoadedService(
                backend.length,
                backend.trained_length,
                engine,
                PromptReader(backend, chat),
                AnswerPlanner(backend.vocabulary, chat.controls),
                self._slots,
            )
            self._status.set_loaded()
            await engine.run()

    async def begin(self, request: InferenceRequest, request_id: str, salt: str = "") -> BegunRequest:
        """Check a request and start its job, which the caller has to enter.

        Raises the error that the client gets; nothing is taken then, nor when cancelled.
        """
        try:
            service = self._ready()
            service.check(request, request_id)
            read = (await service.read(request, request_id))._replace(salt=salt.encode())
            # The worker may have begun to shut down meanwhile.
            self._status.check_ready()
            return BegunRequest(service.start(request, request_id, read), read)
        except RbeeError as exc:
            self.metrics.refused(exc)
            raise

    async def begin_next(self, request: InferenceRequest, request_id: str, read: ReadRequest, choice: int) -> JobHandle:
        """Start the job of a request's next choice, once there is a slot; the one before has ended.

        After `cancel` it raises CancelledError. With the same seed it would be the same answer once more.
        """
        if request.seed is not None:
            request = msgspec.structs.replace(request, seed=(request.seed + choice) % SEEDS)
        service = self._ready()
        with service.preparing(request_id):
            if read.plan is not None:
                read = read._replace(constraint=await service.planner.constraint(read.plan))
            while True:
                changed = self._status.changed
                service = self._ready()
                try:
                    return service.start(request, request_id, read)
                except AllSlotsBusyError:
                    await changed.wait()
        raise AssertionError  # the block raises or returns

    def context(self) -> FullContext:
        """Return how much the model has room for. Raises WorkerNotReadyError before it is loaded."""
        service = self._ready()
        return FullContext(tokens=service.length, trained_tokens=service.trained_length)

    def note(self, request: InferenceRequest) -> str | None:
        """Return what the user should know about how the prompt was read."""
        if self._loaded is None:
            return None
        return self._loaded.prompts.note(raw=request.raw, is_conversation=request.conversation is not UNSET)

    def _ready(self) -> LoadedService:
        if self._loaded is None:
            raise self._status.now.refusal()
        self._status.check_ready()
        return self._loaded

    async def cancel(self, request_id: str) -> None:
        """End a request if it runs; returns when it has ended."""
        if self._loaded is not None:
            self._loaded.cancel(request_id)
        if (job := self._slots.find(request_id)) is not None:
            await job.cancel()

    def set_silent(self, request_id: str, is_silent: bool) -> None:
        """Say whether the reader of a request takes nothing; a request that has ended is no error."""
        if (job := self._slots.find(request_id)) is not None:
            self._slots.set_silent(job, is_silent)

    async def drain(self, seconds: float, force: trio.Event) -> None:
        """Take no more requests, and give those that run `seconds`, or until `force`, to end; then end them."""
        self._status.set_draining()
        with trio.move_on_after(seconds):
            async with cancel_when(force):
                await self._status.wait_idle()
        if self._status.now.running:
            self._slots.cancel_all(DrainingError("the worker is shutting down"))
            with trio.move_on_after(CANCEL_ALL_SECONDS):
                await self._status.wait_idle()
