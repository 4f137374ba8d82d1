"""Turns a request's prompt into the tokens that the model reads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import trio
from msgspec import UNSET

from rbee.errors import InvalidRequestError
from rbee.narrower_errors import PromptTooLongError
from rbee.wire.worker import CONTEXT_LENGTH_EXCEEDED
from rbee.worker.chat import frame as chat_frame
from rbee.worker.serving import echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.wire.chat.conversation import Conversation
    from rbee.wire.worker import InferenceRequest
    from rbee.worker.chat.chat import Chat
    from rbee.worker.chat.history import History
    from rbee.worker.engine.backend import Backend
    from rbee.worker.serving.echo import EchoedPrompt

T = TypeVar("T")

TOKENIZERS: Final = 4
"""Prompts tokenised or rendered at the same time; a long one takes a thread for a second."""
SAMPLE: Final = 16
"""Characters for each token of the context that are read of a longer prompt, to see whether the rest matters.

Text has about four characters a token, and tokenising a million takes minutes with some models.
"""
SAMPLE_TOLERANCE: Final = 256
"""Tokens by which such a sample may differ from the beginning of the whole."""


class ReadPrompt(NamedTuple):
    """A prompt's tokens, at least one, and where it was a conversation, how that was written."""

    tokens: list[int]
    history: History | None = None


class PromptReader:
    """Reads prompts for one model; `chat` is what its chat template does with them, if it has one."""

    def __init__(self, backend: Backend, chat: Chat) -> None:
        self._vocabulary = backend.vocabulary
        self._length = backend.length
        self._trained_length = backend.trained_length
        self._chat = chat
        self._limiter = trio.CapacityLimiter(TOKENIZERS)

    async def read_request(self, request: InferenceRequest) -> ReadPrompt:
        """Return the tokens of whatever a request gives. Raises InvalidRequestError."""
        if request.conversation is not UNSET:
            return await self.read_conversation(request.conversation)
        if request.tokens is not UNSET:
            self.check_tokens(request.tokens)
            return ReadPrompt(request.tokens)
        assert request.prompt is not UNSET
        if request.suffix is not UNSET:
            return ReadPrompt(await self._read_around(request.prompt, request.suffix))
        return ReadPrompt(await self.read(request.prompt, raw=request.raw))

    async def _read_around(self, prompt: str, suffix: str) -> list[int]:
        """Return the tokens by which a model fills in what stands between two texts. Raises InvalidRequestError."""
        if (markers := self._vocabulary.infill_tokens()) is None:
            raise InvalidRequestError(
                "field suffix: this model does not fill in what stands between two texts",
                field="suffix",
                rule="left out",
            )
        before, after, middle = markers
        begin = await self._in_thread(partial(self._vocabulary.tokenize, ""))
        prefix, end = [await self._fitting(text, self._tokenize_part) if text else [] for text in (prompt, suffix)]
        tokens = [*begin, before, *prefix, after, *end, middle]
        self._check_length(tokens)
        return tokens

    def echoed(self, request: InferenceRequest, tokens: list[int]) -> EchoedPrompt:
        """Return what stands before the answers to a request of these tokens. Raises InvalidRequestError."""
        return echo.echoed(request, tokens, self._vocabulary)

    async def read(self, prompt: str, *, raw: bool) -> list[int]:
        """Return the prompt's tokens, at least one; `raw` leaves the frame out.

        Raises InvalidRequestError where there are none, or where the context cannot hold them and one more.
        Cancelling returns at once; the thread goes on to its end.
        """
        return await self._fitting(prompt, partial(self._tokenize, raw=raw))

    async def read_conversation(self, conversation: Conversation) -> ReadPrompt:
        """Return a conversation's tokens, and how it was written. Raises as `read` does, and what the template says."""
        history = await self._chat.history(conversation)
        return ReadPrompt(await self._fitting(history.text, self._tokenize_rendered), history)

    def check_bias(self, request: InferenceRequest) -> None:
        """Raise InvalidRequestError where a bias is given for a token that the model does not have."""
        if request.logit_bias is not UNSET and any(
            not 0 <= one < self._vocabulary.tokens for one in request.logit_bias
        ):
            rule = f"numbers of tokens below {self._vocabulary.tokens}"
            raise InvalidRequestError(f"field logit_bias: {rule}", field="logit_bias", rule=rule)

    def check_tokens(self, tokens: list[int]) -> None:
        """Raise InvalidRequestError where the context cannot hold these and one more, or the model knows one not."""
        if max(tokens) >= self._vocabulary.tokens:
            rule = f"tokens below {self._vocabulary.tokens}"
            raise InvalidRequestError(f"field tokens: {rule}", field="tokens", rule=rule)
        self._check_length(tokens)

    def _check_length(self, tokens: list[int]) -> None:
        if len(tokens) >= self._length:
            raise self._too_long(len(tokens))

    async def _fitting(self, text: str, tokenize: Callable[[str], Awaitable[list[int]]]) -> list[int]:
        """Return a text's tokens, once it is known that they fit: of a very long one the beginning tells."""
        length = self._length
        sample = text[: length * SAMPLE]
        tokens = await tokenize(sample)
        is_whole = len(sample) == len(text)
        if not is_whole and len(tokens) < length + SAMPLE_TOLERANCE:
            tokens = await tokenize(text)
            is_whole = True
        if not tokens:
            raise InvalidRequestError("field prompt: it has no tokens", field="prompt", rule="at least one token")
        if len(tokens) < length:
            return tokens
        raise self._too_long(len(tokens), is_whole=is_whole)

    def _too_long(self, tokens: int, *, is_whole: bool = True) -> PromptTooLongError:
        """Return the error in words that agents know: they compact their history where they find one of them.

        Anthropic's, OpenAI's, llama.cpp's and Groq's servers say it so, and each agent looks for some of these.
        """
        length, most = self._length, self._trained_length
        hint = "shorten the prompt"
        if most > length:
            hint += f", or raise `context` under [worker], to {most} at most"
        return PromptTooLongError(
            f"prompt is too long: {tokens}{'' if is_whole else ' or more'} tokens > {length} maximum. This model's "
            f"maximum context length is {length} tokens: the request exceeds the available context size, and so "
            "exceeds the context window. Reduce the length of the messages",
            hint=hint,
            field="prompt",
            rule=f"fewer than {length} tokens",
            kind=CONTEXT_LENGTH_EXCEEDED,
            tokens=tokens,
            context=length,
        )

    def note(self, *, raw: bool, is_conversation: bool = False) -> str | None:
        """Return what the user should know about how prompts are read."""
        if self._chat.refusal is None:
            return None
        if is_conversation and self._chat.family is not None:
            return (
                f"The model's chat template cannot be used ({self._chat.refusal}): the conversation is written in the "
                f"{self._chat.family.name} way, and the answer may be worse for it"
            )
        if raw:
            return None
        return (
            f"The model's chat template cannot be used ({self._chat.refusal}): the prompt goes to the model as it is, "
            "and the answer may be worse for it"
        )

    async def _tokenize(self, text: str, *, raw: bool) -> list[int]:
        vocabulary, frame, marks = self._vocabulary, self._chat.frame, self._chat.marks
        if raw or frame is None:
            return await self._in_thread(partial(vocabulary.tokenize, text))
        if not frame.changes:
            return await self._in_thread(partial(chat_frame.tokens, vocabulary, marks, frame, text))
        marked = await self._in_thread(partial(marks.marked, text))
        return await self._tokenize_rendered(await self._chat.rendered(marked))

    async def _tokenize_part(self, text: str) -> list[int]:
        return await self._in_thread(partial(self._vocabulary.tokenize, text, begin=False))

    async def _tokenize_rendered(self, text: str) -> list[int]:
        return await self._in_thread(partial(self._chat.marks.tokens, self._vocabulary, text))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
