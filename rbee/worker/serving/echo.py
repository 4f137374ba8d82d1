"""What stands before an answer where the prompt is to be part of it, with how probable its tokens were (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import UNSET

from rbee.errors import InvalidRequestError
from rbee.wire.chat.answer import TextDelta, TokenChance, TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.worker import InferenceRequest
    from rbee.worker.engine.backend import Vocabulary

MAX_SCORED: Final = 32_768
"""Tokens of a prompt whose probabilities are told: with the 20 likeliest ones each they take some 200 MB."""
_EVENT_TOKENS: Final = 256
"""Tokens whose probabilities travel in one event."""


class EchoedPrompt(NamedTuple):
    """A prompt's text; if it is wanted how probable its tokens were, the first, and how many behind it are `scored`.

    Before the first may be a token that the model wants, and nobody wrote. As OpenAI has it, the first has no
    probability, whatever is before it.
    """

    text: str = ""
    first: TokenLogprob | None = None
    scored: int = 0

    def pieces(self, choice: int, logprobs: Sequence[TokenLogprob] = ()) -> list[TextDelta]:
        """Return the events for one choice; the `logprobs` are those of the tokens that are `scored`."""
        told = [*([] if self.first is None else [self.first]), *logprobs]
        parts = [told[at : at + _EVENT_TOKENS] for at in range(0, len(told), _EVENT_TOKENS)] or [[]]
        return [
            TextDelta(choice=choice, text="" if number else self.text, logprobs=part)
            for number, part in enumerate(parts)
            if part or self.text
        ]


def echoed(request: InferenceRequest, tokens: Sequence[int], vocabulary: Vocabulary) -> EchoedPrompt:
    """Return what stands before the answers to a request, which the model reads as these tokens.

    Raises InvalidRequestError where they are too many to tell how probable each was.
    """
    if request.echo is not True or request.conversation is not UNSET:
        return EchoedPrompt()
    is_text = request.prompt is not UNSET
    text = request.prompt if request.prompt is not UNSET else _text(tokens, vocabulary)
    is_framed = is_text and not request.raw
    if request.logprobs is UNSET or request.suffix is not UNSET or is_framed:
        return EchoedPrompt(text)
    start = 1 if is_text and not vocabulary.piece(tokens[0]) else 0
    if start >= len(tokens):
        return EchoedPrompt(text)
    if len(tokens) > MAX_SCORED:
        rule = f"without logprobs for a prompt of more than {MAX_SCORED} tokens"
        raise InvalidRequestError(f"field echo: {rule}", field="echo", rule=rule)
    data = vocabulary.piece(tokens[start], control=True)
    if not text.startswith(" "):
        data = data.removeprefix(b" ")  # sentencepiece puts a space before a text
    first = TokenLogprob(chosen=TokenChance(token=tokens[start], data=data, logprob=None))
    return EchoedPrompt(text, first, len(tokens) - start - 1)


def _text(tokens: Sequence[int], vocabulary: Vocabulary) -> str:
    return b"".join(map(vocabulary.piece, tokens)).decode("utf-8", "replace")
