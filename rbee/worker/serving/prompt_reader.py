"""Turns a request's prompt into the tokens that the model reads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from rbee.errors import InvalidRequestError
from rbee.worker.chat import frame as chat_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.worker.chat.frame import Chat
    from rbee.worker.engine.backend import Backend

T = TypeVar("T")

TOKENIZERS: Final = 4
"""Prompts tokenised or rendered at the same time; a long one takes a thread for a second."""
SAMPLE: Final = 16
"""Characters for each token of the context that are read of a longer prompt, to see whether the rest matters.

Text has about four characters a token, and tokenising a million takes minutes with some models.
"""
SAMPLE_TOLERANCE: Final = 256
"""Tokens by which such a sample may differ from the beginning of the whole."""


class PromptReader:
    """Reads prompts for one model; `chat` is what its chat template does with them, if it has one."""

    def __init__(self, backend: Backend, chat: Chat) -> None:
        self._vocabulary = backend.vocabulary
        self._length = backend.length
        self._trained_length = backend.trained_length
        self._chat = chat
        self._limiter = trio.CapacityLimiter(TOKENIZERS)

    async def read(self, prompt: str, *, raw: bool) -> list[int]:
        """Return the prompt's tokens, at least one; `raw` leaves the frame out.

        Raises InvalidRequestError where there are none, or where the context cannot hold them and one more.
        Cancelling returns at once; the thread goes on to its end.
        """
        length = self._length
        sample = prompt[: length * SAMPLE]
        tokens = await self._tokenize(sample, raw=raw)
        is_whole = len(sample) == len(prompt)
        if not is_whole and len(tokens) < length + SAMPLE_TOLERANCE:
            tokens = await self._tokenize(prompt, raw=raw)
            is_whole = True
        if not tokens:
            raise InvalidRequestError("field prompt: it has no tokens", field="prompt", rule="at least one token")
        if len(tokens) < length:
            return tokens
        most = self._trained_length
        raise InvalidRequestError(
            f"the prompt has {'' if is_whole else 'at least '}{len(tokens)} tokens, and the context holds {length}",
            hint="shorten the prompt"
            + (f", or raise `context` under [worker], to {most} at most" if most > length else ""),
            field="prompt",
            rule=f"fewer than {length} tokens",
            tokens=len(tokens),
            context=length,
        )

    def note(self, *, raw: bool) -> str | None:
        """Return what the user should know about how prompts are read."""
        if raw or self._chat.refusal is None:
            return None
        return (
            f"The model's chat template cannot be used ({self._chat.refusal}): the prompt goes to the model as it is, "
            "and the answer may be worse for it"
        )

    async def _tokenize(self, text: str, *, raw: bool) -> list[int]:
        vocabulary, frame = self._vocabulary, self._chat.frame
        if raw or frame is None:
            return await self._in_thread(partial(vocabulary.tokenize, text))
        if not frame.changes:
            return await self._in_thread(partial(chat_frame.tokens, vocabulary, frame, text))
        marked = await self._in_thread(partial(chat_frame.marked, vocabulary, text))
        async with self._limiter:  # a process for each, which may take a gigabyte
            written = await chat_frame.rendered(self._chat, marked)
        return await self._in_thread(partial(chat_frame.split_tokens, vocabulary, written))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
