"""OpenAI's HTTP interface: chat completions, completions and models."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import trio
from quart import request

from rbee.adapters.http.app import answer
from rbee.adapters.logs.json_log import correlation
from rbee.errors import RbeeError
from rbee.queen.api.models import KnownModel, Names, meant
from rbee.queen.api.openai.chat import chat_call
from rbee.queen.api.openai.chat_answer import ChatAnswer
from rbee.queen.api.openai.chat_stream import ChatStream
from rbee.queen.api.openai.errors import failure_of
from rbee.queen.api.openai.model_list import described, model_list
from rbee.queen.api.openai.parts import LAST, Head
from rbee.queen.api.openai.sampling import context_of
from rbee.queen.api.openai.text import text_call
from rbee.queen.api.openai.text_answer import TextAnswer, TextStream
from rbee.queen.routes import dialect, request_log
from rbee.queen.routes.failures import OPENAI
from rbee.wire.dialects import openai_request as wire
from rbee.wire.dialects.foreign import decode_foreign

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.http.held_stream import HeldStream
    from rbee.queen.routes.context import QueenContext
    from rbee.queen.routes.dialect import DialectRequest
    from rbee.wire.chat.answer import AnswerEvent
    from rbee.wire.worker import GenerationSpec

FLEX: Final = "flex"
"""The service tier of what nobody waits for: cheaper and slower at OpenAI, and after all others here."""
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"


class _Chunks(Protocol):
    def on_event(self, event: AnswerEvent, prompt: int = 0) -> bytes: ...
    def check_complete(self) -> None: ...


class _Collector(Protocol):
    def on_event(self, event: AnswerEvent, prompt: int = 0) -> None: ...
    def result(self) -> msgspec.Struct: ...


def add(app: QuartTrio, context: QueenContext) -> None:
    unknown = dialect.UnknownFields()
    reasoning_field = context.settings.api.reasoning_field

    @app.post(wire.CHAT)
    async def complete_chat() -> Response:
        asked, names = decode_foreign(await dialect.generation_body(), wire.OpenAIChatRequest)
        unknown.note(wire.CHAT, names)
        call = chat_call(asked)
        is_batch, session = asked.service_tier == FLEX, asked.prompt_cache_key
        tokens = context_of(asked)
        run = await dialect.begin(context, call.model, is_batch=is_batch, session=session, tokens=tokens)
        head = _head("chatcmpl", run, call.model)
        if call.is_stream:
            return await _stream(run, [call.spec], ChatStream(head, call, reasoning_field))
        return await _answer(run, [call.spec], ChatAnswer(head, call, reasoning_field))

    @app.post(wire.TEXT)
    async def complete_text() -> Response:
        asked, names = decode_foreign(await dialect.generation_body(), wire.OpenAITextRequest)
        unknown.note(wire.TEXT, names)
        call = text_call(asked)
        run = await dialect.begin(context, call.model, tokens=context_of(asked))
        head = _head("cmpl", run, call.model)
        if call.is_stream:
            return await _stream(run, call.specs, TextStream(head, call))
        return await _answer(run, call.specs, TextAnswer(head, call))

    @app.get(wire.MODELS)
    async def list_openai_models() -> Response:
        identity = request_log.current().identity
        names = await dialect.names_of(context, fresh=True)
        known = [model for model in names.known if identity.may_use(model.reference)]
        known = await context.models.described(known)
        by_reference = {model.reference: model for model in known}
        aliases = {
            alias: by_reference.get(reference, KnownModel(reference))
            for alias in names.aliases
            if (reference := _meant_by(alias, names)) and identity.may_use(reference, alias)
        }
        return answer(model_list(known, aliases, names.default))

    @app.get("/v1/models/<path:model>")
    async def show_openai_model(model: str) -> Response:
        names = (await dialect.names_of(context, fresh=True))._replace(unknown_is_default=False)
        reference = meant(model, names).reference
        request_log.current().identity.check_model(reference, model)
        known = next((one for one in names.known if one.reference == reference), KnownModel(reference))
        (found,) = await context.models.described([known])
        return answer(described(found, model))

    @app.after_request
    async def _mark(response: Response) -> Response:
        if request.path.startswith(OPENAI):
            record = request_log.current()
            response.headers["x-request-id"] = record.request_id or correlation.get() or ""
            response.headers["openai-processing-ms"] = str(round((trio.current_time() - record.began) * 1e3))
        return response


def _head(kind: str, run: DialectRequest, name: str) -> Head:
    """Return the head of an answer; its id holds the request's, and the model is the name that was asked for."""
    return Head(f"{kind}-{run.id.replace('-', '')}", int(time.time()), name or run.meant.reference)


def _meant_by(alias: str, names: Names) -> str | None:
    """Return the reference that an alias stands for; None for one that stands for nothing."""
    try:
        return meant(alias, names._replace(unknown_is_default=False)).reference
    except RbeeError:
        return None


async def _stream(run: DialectRequest, specs: Sequence[GenerationSpec], chunks: _Chunks) -> Response:
    async def produce(stream: HeldStream) -> None:
        await run.run(specs, lambda event, prompt: stream.add(chunks.on_event(event, prompt)), stream)
        chunks.check_complete()

    is_chat = request.path == wire.CHAT
    return await dialect.streamed(
        run, produce, lambda error: failure_of(error, is_chat=is_chat).event(), last=LAST, content_type=EVENT_STREAM
    )


async def _answer(run: DialectRequest, specs: Sequence[GenerationSpec], collector: _Collector) -> Response:
    await dialect.collect(run, specs, collector.on_event)
    return answer(collector.result())
