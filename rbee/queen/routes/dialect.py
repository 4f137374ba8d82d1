"""Runs the requests of all dialects: each means a model by some name, and its answer passes through the queen."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET
from quart import Response, request

from rbee.adapters.http.app import at_end, client_connection, raw_body
from rbee.adapters.http.held_stream import HeldStream
from rbee.concurrency.contained import as_error
from rbee.errors import CancelledError, DrainingError, InvalidRequestError, ModelNotFoundError, RbeeError
from rbee.queen.api.models import Meant, Names, meant
from rbee.queen.requests.caller import MAX_SESSION, Caller, says_batch, session_of, turn_of
from rbee.queen.requests.events import Generated
from rbee.queen.requests.request import InferenceRun
from rbee.queen.routes import request_log
from rbee.wire import model_ref
from rbee.wire.administration import alias_names
from rbee.wire.chat.answer import AnswerEnded, ChoiceEnded
from rbee.wire.common import KEEP_HEADER, Narration
from rbee.wire.decode import check_texts, keep_seconds
from rbee.wire.queen import TaskRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from rbee.queen.requests.events import RunEvent
    from rbee.queen.requests.generations import Generations
    from rbee.queen.requests.record import RequestRecord
    from rbee.queen.routes.context import QueenContext
    from rbee.wire.chat.answer import AnswerEvent
    from rbee.wire.progress import ProgressEvent
    from rbee.wire.worker import GenerationSpec

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 600.0
"""For a slot: as long as the clients of OpenAI and others wait for the first byte."""
HOLD_SECONDS: Final = 2.0
"""The head of a stream waits for so long for an error, where nothing says that it takes longer."""
TOGETHER: Final = 4
"""Generations of one request that run at the same time."""
MAX_TOLD: Final = 1000
"""Names of unknown fields that are remembered, so that each is told once; and names of models."""


class UnknownFields:
    """Tells the log once of each field that clients send and nobody knows."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def note(self, route: str, names: Sequence[str]) -> None:
        """Note the names, as far as they look like names."""
        new = [name for name in names if name.isidentifier() and len(name) <= 64 and name not in self._told]
        if new and len(self._told) < MAX_TOLD:
            self._told.update(new)
            log.info("%s: fields without a meaning here are ignored: %s", route, ", ".join(new))


@dataclass
class DialectRequest:
    """One request of a dialect, and the model that it means."""

    context: QueenContext
    record: RequestRecord
    id: str
    meant: Meant
    caller: Caller
    tokens: int | None = None

    async def run(
        self,
        specs: Sequence[GenerationSpec],
        on_event: Callable[[AnswerEvent, int], object],
        stream: HeldStream | None = None,
    ) -> None:
        """Run the generations, some of them at the same time; `on_event` takes what each answers, with its number.

        They wait while the `stream` is behind, and release it when it is known that it takes its time, and that nothing
        can be refused any more. Raises the first error; then the others are cancelled.
        """
        if len(specs) == 1:
            await self._run_one(0, self.id, specs[0], on_event, stream)
            return
        limiter = trio.CapacityLimiter(TOGETHER)
        failures: list[RbeeError] = []

        async def run_one(number: int, spec: GenerationSpec) -> None:
            request_id = self.id if number == 0 else str(uuid.uuid4())
            async with limiter:
                try:
                    await self._run_one(number, request_id, spec, on_event, stream)
                except RbeeError as exc:
                    failures.append(exc)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number, spec in enumerate(specs):
                nursery.start_soon(run_one, number, spec)
        if failures:
            raise failures[0]

    async def _run_one(
        self,
        number: int,
        request_id: str,
        spec: GenerationSpec,
        on_event: Callable[[AnswerEvent, int], object],
        stream: HeldStream | None,
    ) -> None:
        context, record = self.context, self.record
        generations = context.requests.generations
        taker = _AnswerTaker(request_id, record, generations, stream, lambda answer: on_event(answer, number))

        def report(event: ProgressEvent) -> None:
            if not isinstance(event, Narration):
                taker.release()  # a model is fetched or loaded, or a long prompt is read

        fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
        task = TaskRequest(
            **fields,
            model=self.meant.reference,
            node=self.meant.node,
            request_id=request_id,
            relay=True,
            wait_s=WAIT_SECONDS,
            context=self.tokens or UNSET,
        )
        client = client_connection()

        with context.track(request_id, record.identity) as tracked:
            place = context.nodes, context.settings, context.token, context.connections
            run = InferenceRun(task, tracked, *place, caller=self.caller)
            try:
                await run.run(record.reporting(report), taker, client)
            except Exception:
                if not taker.has_begun:
                    generations.end(request_id)  # nothing was read, and its worker has nothing to say
                raise


class _AnswerTaker:
    """Takes the events of a run, and gives those of the answer on; waits while its stream, if any, is behind."""

    def __init__(
        self,
        request_id: str,
        record: RequestRecord,
        generations: Generations,
        stream: HeldStream | None,
        on_event: Callable[[AnswerEvent], object],
    ) -> None:
        self._id = request_id
        self._record = record
        self._generations = generations
        self._stream = stream
        self._on_event = on_event
        self.has_begun = False
        """Whether the worker has read the prompt."""

    @property
    def has_room(self) -> bool:
        return self._stream is None or self._stream.has_room

    async def wait_for_room(self) -> None:
        if self._stream is not None:
            await self._stream.wait_for_room()

    def take(self, event: RunEvent) -> None:
        if not isinstance(event, Generated):
            self._record.on_event(event)
            self._generations.begin(self._id, self._record, event.worker_id)
            if event.state not in ("idle", "busy"):
                self.release()
        elif (answer := event.decode_answer()) is not None:
            self._record.on_event(event)
            self._note(answer)
            self.release()
            self._on_event(answer)

    def release(self) -> None:
        """It takes its time."""
        if self._stream is not None:
            self._stream.release()

    def _note(self, event: AnswerEvent) -> None:
        """Note what the log says of a request; of several generations together."""
        self.has_begun = True
        if isinstance(event, ChoiceEnded):
            self._record.end = event.reason
        elif isinstance(event, AnswerEnded):
            usage = event.usage
            self._generations.end(self._id, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


async def names_of(context: QueenContext, *, fresh: bool = False) -> Names:
    """Return what names can mean now to whom the current request comes from; `fresh` asks the nodes again."""
    settings = context.settings
    default = settings.defaults.reference or model_ref.BUILTIN
    names = Names(
        known=await context.models.all(fresh=fresh),
        aliases=context.aliases.all(),
        nodes={node.name for node in context.nodes.all()},
        default=_reference(default) or model_ref.BUILTIN,
        unknown_is_default=settings.api.unknown_model == "default",
        may_see=request_log.current().identity.may_use,
    )
    if _reference(default) is None:
        with suppress(RbeeError):  # who asks for it is told so
            names = names._replace(default=meant(default, names._replace(unknown_is_default=False)).reference)
    return names


def _reference(name: str) -> str | None:
    """Return the reference that a name is without a look at what else there is."""
    try:
        return str(model_ref.parse(name))
    except InvalidRequestError:
        return None


async def find_model(context: QueenContext, name: str) -> Meant:
    """Return what a name means; what is not known is looked for once more.

    Raises ModelNotFoundError or NodeNotFoundError.
    """
    if not name:
        name = context.settings.defaults.reference or model_ref.BUILTIN
        if (reference := _reference(name)) is not None:
            return Meant(reference)
    names, remembered = await names_of(context), context.models.found
    if (found := remembered.get(name)) is not None:
        return found
    try:
        found = meant(name, names._replace(unknown_is_default=False))
    except ModelNotFoundError:
        return meant(name, await names_of(context, fresh=True))
    if len(remembered) < MAX_TOLD:
        remembered[name] = found
    return found


async def generation_body() -> bytes:
    """Return the body of a request for text, which takes the event loop no more than some ten milliseconds to read.

    Raises InvalidRequestError. 16 MB of small values took it half a second, and a thread helps nothing: whoever decodes
    holds the interpreter.
    """
    data = await raw_body()
    check_texts(data)
    return data


async def name_model(context: QueenContext, task: TaskRequest) -> None:
    """Put the reference in place of a name in a task, and the node that belongs to that.

    Raises ModelNotFoundError, NodeNotFoundError, or InvalidRequestError for what no model is called.
    """
    name = task.model or context.settings.defaults.reference
    if name is not None and (found := await of_name(context, name)) is not None:
        task.model, task.node = found.reference, task.node or found.node


async def of_name(context: QueenContext, name: str) -> Meant | None:
    """Return what a name means that is no reference, perhaps with `@node`; None for a reference, or what cannot be one.

    Raises ModelNotFoundError for an alias of a model that is not there, NodeNotFoundError, or InvalidRequestError.
    """
    rest = name.rpartition("@")[0]
    aliases = context.aliases.all()
    is_alias = any(alias_names.named(one, aliases) is not None for one in (name, rest))
    if not is_alias and (_reference(name) is not None or not alias_names.is_name(rest or name)):
        return None
    try:
        return await find_model(context, name)
    except ModelNotFoundError as exc:
        if is_alias:
            raise
        forms = model_ref.refused(exc.message)
        nearest = ", ".join(exc.details.get("nearest", ()))
        hint = f"the nearest ones are {nearest}; `rbee models list` lists all\n{forms.hint}" if nearest else forms.hint
        raise InvalidRequestError(exc.message, hint=hint, **forms.details) from None


async def begin(
    context: QueenContext,
    name: str,
    *,
    is_batch: bool = False,
    session: str | None = None,
    tokens: int | None = None,
) -> DialectRequest:
    """Take the current request, which asks for a model by this name. Raises why it is refused; starts nothing.

    With `is_batch`, or a header that says so, all others go before it. A `session` that it names, or else its headers,
    says which requests belong together. `tokens` is what it may come to.
    """
    if context.stopping.asked.is_set():
        raise DrainingError("the queen is shutting down and takes no new requests")
    record, client = request_log.current(), client_connection()
    keep = keep_seconds(request.headers.get(KEEP_HEADER))
    found = await find_model(context, name)
    record.identity.check_model(found.reference, name)
    record.request_id, record.model = str(uuid.uuid4()), found.reference
    who, is_late = turn_of(record.identity, request.headers.get), is_batch or says_batch(request.headers.get)
    caller = Caller(
        client.peer_host,
        client.own_host,
        keep=keep,
        name=who,
        is_batch=is_late,
        salt=record.identity.salt,
        session=(session or session_of(request.headers.get))[:MAX_SESSION],
    )
    return DialectRequest(context, record, record.request_id, found, caller, tokens)


async def streamed(
    asked: DialectRequest,
    produce: Callable[[HeldStream], Awaitable[object]],
    event_of: Callable[[RbeeError], bytes],
    *,
    last: bytes,
    content_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a stream; what goes wrong soon is raised, and answered with a status."""
    context, record = asked.context, asked.record

    def is_over(record: RequestRecord) -> None:
        if stream.has_begun or record.end == CancelledError.code:
            context.requests.end(record, context.nursery)
        else:
            record.is_stream = False  # the answer that is no stream ends it

    produce = request_log.watched(produce, record, is_over)
    heartbeat, write = context.settings.timeouts.heartbeat, client_connection().write_through
    stream = HeldStream(produce, event_of, last=last, heartbeat=heartbeat, write=write)
    at_end(stream.close)
    await stream.begin(context.nursery, HOLD_SECONDS)
    return Response(
        stream,
        content_type=content_type,
        # A proxy before us is not to hold chunks back until it has some kilobytes of them (nginx: proxy_buffering).
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})},
    )


async def collect(
    asked: DialectRequest, specs: Sequence[GenerationSpec], on_event: Callable[[AnswerEvent, int], object]
) -> None:
    """Run the generations of a request whose answer is one object."""
    try:
        await asked.run(specs, on_event)
    except ExceptionGroup as exc:
        raise as_error(exc, "the request") from exc
