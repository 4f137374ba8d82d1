"""Translates what workers answer into OpenAI's completions, as one answer or as chunks (PURE).

Several prompts are several generations, whose choices are numbered one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import UNSET

from rbee.queen.api.openai.parts import cut_off, frame, sum_of, token_text, usage_of
from rbee.wire.chat.answer import AnswerEnded, ChoiceEnded, ReasoningDelta, TextDelta
from rbee.wire.dialects.openai_answer import OpenAITextChoice, OpenAITextCompletion, OpenAITextLogprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.queen.api.openai.parts import Head
    from rbee.queen.api.openai.text import TextCall
    from rbee.wire.chat.answer import AnswerEvent, TokenLogprob, Usage


def _reason(ended: ChoiceEnded) -> Literal["stop", "length"]:
    return "length" if ended.reason == "length" else "stop"


def _top(logprob: TokenLogprob) -> dict[str, float] | None:
    found = {token_text(one): one.logprob for one in logprob.top if one.logprob is not None}
    return found or None


def _logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> OpenAITextLogprobs | None:
    if not logprobs:
        return None
    found = OpenAITextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for logprob in logprobs:
        text = token_text(logprob.chosen)
        found.tokens.append(text)
        found.token_logprobs.append(logprob.chosen.logprob)
        found.top_logprobs.append(_top(logprob))
        found.text_offset.append(offset)
        offset += len(text)
    return found


class _Offsets:
    """Counts, for one choice, at which character of its text a token begins.

    An echoed prompt may come without probabilities, before all tokens that have some; a token's text may come later.
    """

    def __init__(self) -> None:
        self._next = 0
        self._counts_tokens = False

    def take(self, text: str, logprobs: Sequence[TokenLogprob]) -> int:
        """Take what comes next; returns where the first of these tokens begins."""
        self._counts_tokens = self._counts_tokens or bool(logprobs)
        first = self._next
        if self._counts_tokens:
            self._next += sum(len(token_text(one.chosen)) for one in logprobs)
        else:
            self._next += len(text)
        return first


class TextStream:
    """The chunks of a completion; the generations take turns in any way."""

    def __init__(self, head: Head, call: TextCall) -> None:
        self._head = head
        self._call = call
        self._usage = None if call.include_usage else UNSET
        self._usages: dict[int, Usage] = {}
        self._offsets = [_Offsets() for _ in range(len(call.specs) * call.choices)]

    def on_event(self, event: AnswerEvent, prompt: int = 0) -> bytes:
        """Return the chunks that an event becomes; `prompt` counts the prompts from 0."""
        match event:
            case TextDelta() | ReasoningDelta():
                index = prompt * self._call.choices + event.choice
                logprobs = event.logprobs if isinstance(event, TextDelta) else []
                if not (event.text or logprobs):
                    return b""
                offset = self._offsets[index].take(event.text, logprobs)
                return self._chunk(
                    OpenAITextChoice(
                        text=event.text, index=index, logprobs=_logprobs(logprobs, offset), finish_reason=None
                    )
                )
            case ChoiceEnded():
                index = prompt * self._call.choices + event.choice
                return self._chunk(OpenAITextChoice(text="", index=index, logprobs=None, finish_reason=_reason(event)))
            case AnswerEnded():
                self._usages[prompt] = event.usage
                if not (self._call.include_usage and len(self._usages) == len(self._call.specs)):
                    return b""
                return frame(self._with([], usage_of(sum_of(list(self._usages.values())))))
            case _:
                return b""

    def check_complete(self) -> None:
        """Raise WorkerFailedError where the answer ended before it was whole."""
        if len(self._usages) < len(self._call.specs):
            raise cut_off()

    def _chunk(self, choice: OpenAITextChoice) -> bytes:
        return frame(self._with([choice], self._usage))

    def _with(self, choices: list[OpenAITextChoice], usage: object) -> OpenAITextCompletion:
        head = self._head
        return OpenAITextCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=choices,
            usage=usage,  # type: ignore[arg-type]  # one of the three that it may be
        )


class TextAnswer:
    """Collects the events of all generations of a completion."""

    def __init__(self, head: Head, call: TextCall) -> None:
        self._head = head
        self._call = call
        count = len(call.specs) * call.choices
        self._texts: list[list[str]] = [[] for _ in range(count)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(count)]
        self._offsets = [0] * count
        """Where the first token begins that has a probability."""
        self._ended: dict[int, ChoiceEnded] = {}
        self._usages: dict[int, Usage] = {}

    def on_event(self, event: AnswerEvent, prompt: int = 0) -> None:
        """Take the next event of a generation; `prompt` counts the prompts from 0."""
        first = prompt * self._call.choices
        match event:
            case TextDelta() | ReasoningDelta():
                index = first + event.choice
                if isinstance(event, TextDelta) and event.logprobs:
                    if not self._logprobs[index]:
                        self._offsets[index] = sum(map(len, self._texts[index]))
                    self._logprobs[index] += event.logprobs
                self._texts[index].append(event.text)
            case ChoiceEnded():
                self._ended[first + event.choice] = event
            case AnswerEnded():
                self._usages[prompt] = event.usage

    def result(self) -> OpenAITextCompletion:
        """Return the answer; raises WorkerFailedError where it ended before it was whole."""
        if len(self._usages) < len(self._call.specs) or len(self._ended) < len(self._texts):
            raise cut_off()
        return OpenAITextCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[
                OpenAITextChoice(
                    text="".join(text),
                    index=index,
                    logprobs=_logprobs(self._logprobs[index], self._offsets[index]),
                    finish_reason=_reason(self._ended[index]),
                )
                for index, text in enumerate(self._texts)
            ],
            usage=usage_of(sum_of([self._usages[prompt] for prompt in sorted(self._usages)])),
        )
