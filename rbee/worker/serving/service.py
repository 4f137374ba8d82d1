"""Takes inference requests from their arrival to a running generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import CancelledError, DrainingError, InvalidRequestError, RbeeError
from rbee.worker.chat import frame as chat_frame
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.slots import Generations
from rbee.worker.status.metrics import Measures

if TYPE_CHECKING:
    from rbee.wire.chat_template import ChatFrame
    from rbee.wire.worker import InferenceRequest
    from rbee.worker.engine.slots import Generation
    from rbee.worker.llama.loading import Loaded
    from rbee.worker.status.status import Status

TOKENIZERS: Final = 4
"""Prompts tokenised at the same time; a long one takes a thread for a second."""
SAMPLE: Final = 16
"""Characters for each token of the context that are read of a longer prompt, to see whether the rest matters.

Text has about four characters a token, and tokenising a million takes minutes with some models.
"""
MARGIN: Final = 256
"""Tokens by which such a sample may differ from the beginning of the whole."""
CANCEL_ALL_SECONDS: Final = 2.0


class Service:
    """What the worker does once its model is loaded."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.measures = Measures(status)
        self._generations = Generations(status, self.measures)
        self._preparing: dict[str, trio.CancelScope] = {}
        self._limiter = trio.CapacityLimiter(TOKENIZERS)
        self._loaded: Loaded | None = None
        self._engine: Engine | None = None
        self._frame: ChatFrame | None = None

    async def run(self, loaded: Loaded) -> None:
        """Serve requests until cancelled; raises EngineFailedError."""
        self._loaded = loaded
        self._frame = await chat_frame.frame_of(loaded.model)
        self._engine = Engine(loaded.model, loaded.context, self._generations.deliver)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._engine.run)
            self._status.set_loaded()

    async def begin(self, asked: InferenceRequest, request_id: str) -> Generation:
        """Check a request and start its generation, which the caller has to enter.

        Raises the error that the client gets; nothing is taken then, nor when cancelled.
        """
        try:
            return await self._begin(asked, request_id)
        except RbeeError as exc:
            self.measures.refused(exc)
            raise

    async def _begin(self, asked: InferenceRequest, request_id: str) -> Generation:
        self._check(asked, request_id)
        scope = self._preparing[request_id] = trio.CancelScope()
        try:
            with scope:
                tokens = await self._tokenize(asked.prompt, raw=asked.raw)
        finally:
            del self._preparing[request_id]
        if scope.cancelled_caught:
            raise CancelledError("the request was cancelled")
        if not tokens:
            raise InvalidRequestError("field prompt: it has no tokens", field="prompt", rule="at least one token")
        # The worker may have begun to shut down meanwhile.
        self._status.check_ready()
        assert self._engine is not None
        assert self._loaded is not None
        limit = min(asked.max_tokens, self._loaded.context.length - len(tokens))
        return self._generations.start(self._engine, request_id, tokens, asked, limit)

    def _check(self, asked: InferenceRequest, request_id: str) -> None:
        """Raise what can be known before the prompt is read."""
        self._status.check_ready()
        assert self._loaded is not None
        length = self._loaded.context.length
        if asked.max_tokens > length:
            raise InvalidRequestError(
                f"field max_tokens: at most {length}, the context's length",
                field="max_tokens",
                rule=f"<= {length}",
                context=length,
            )
        if request_id in self._preparing:
            raise InvalidRequestError(
                "field request_id: a request with this id is running", field="request_id", rule="not in use"
            )
        self._generations.check_new(request_id)
        self._generations.check_slot()

    async def _tokenize(self, prompt: str, *, raw: bool) -> list[int]:
        """Return the prompt's tokens; raises InvalidRequestError when the context cannot hold them and one more."""
        assert self._loaded is not None
        length = self._loaded.context.length
        sample = prompt[: length * SAMPLE]
        tokens = await self._in_thread(sample, raw=raw)
        is_whole = len(sample) == len(prompt)
        if not is_whole and len(tokens) < length + MARGIN:
            tokens = await self._in_thread(prompt, raw=raw)
            is_whole = True
        if len(tokens) < length:
            return tokens
        most = self._loaded.model.context_length
        raise InvalidRequestError(
            f"the prompt has {'' if is_whole else 'at least '}{len(tokens)} tokens, and the context holds {length}",
            hint="shorten the prompt"
            + (f", or raise `context` under [worker], to {most} at most" if most > length else ""),
            field="prompt",
            rule=f"fewer than {length} tokens",
            tokens=len(tokens),
            context=length,
        )

    async def _in_thread(self, text: str, *, raw: bool) -> list[int]:
        assert self._loaded is not None
        model, frame = self._loaded.model, self._frame

        def work() -> list[int]:
            return model.tokenize(text) if raw or frame is None else chat_frame.tokens(model, frame, text)

        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)

    async def cancel(self, request_id: str) -> None:
        """End a request if it runs; returns when it has ended."""
        if (preparing := self._preparing.get(request_id)) is not None:
            preparing.cancel()
        if (generation := self._generations.find(request_id)) is not None:
            await generation.cancel()

    def set_silent(self, request_id: str, is_silent: bool) -> None:
        """Say whether the reader of a request takes nothing; a request that has ended is no error."""
        if (generation := self._generations.find(request_id)) is not None:
            self._generations.set_silent(generation, is_silent)

    async def drain(self, seconds: float, force: trio.Event) -> None:
        """Take no more requests, and give those that run `seconds`, or until `force`, to end; then end them."""
        self._status.set_draining()
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + seconds
            nursery.start_soon(_cancel_when, force, nursery.cancel_scope)
            await self._status.wait_idle()
            nursery.cancel_scope.cancel()
        if self._engine is not None and self._status.running:
            self._generations.cancel_all(self._engine, DrainingError("the worker is shutting down"))
            with trio.move_on_after(CANCEL_ALL_SECONDS):
                await self._status.wait_idle()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
