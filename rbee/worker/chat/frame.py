"""Puts a prompt into the form of the conversation that its model was trained on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from rbee.adapters.daemon import process
from rbee.errors import InvalidRequestError
from rbee.wire.chat.template import ChatFrame, ChatTemplate, ChatText

if TYPE_CHECKING:
    from rbee.worker.engine.backend import Vocabulary

T = TypeVar("T")
log = logging.getLogger(__name__)

SECONDS: Final = 10.0
"""How long a template may take to be rendered, in its process."""
MARK: Final = "\ue000"
"""Put into what looks like a control token in a prompt; a character for private use, which no template writes."""
_OPENING: Final = "<[{|"
"""How the control tokens of nearly all models begin."""


class Chat(NamedTuple):
    """What a model's template does with a prompt; `refusal` says why it cannot be used, where it cannot.

    With neither a frame nor a refusal the model has no template, and continues prompts as they are.
    """

    frame: ChatFrame | None = None
    refusal: str | None = None
    template: ChatTemplate | None = None


async def chat_of(vocabulary: Vocabulary) -> Chat:
    """Return what the model's own template puts around a prompt, if it has one that can be used."""
    if (found := vocabulary.chat_template) is None:
        return Chat()
    template = ChatTemplate(template=found, begin=vocabulary.begin_text, end=vocabulary.end_text)
    rendered = await _run(template, ChatFrame)
    if isinstance(rendered, ChatFrame):
        return Chat(frame=rendered, template=template)
    # repr: what a template says may hold control characters.
    log.warning("the model's chat template cannot be used, and prompts go to it as they are: %r", rendered)
    return Chat(refusal="".join(letter if letter.isprintable() else " " for letter in rendered))


async def rendered(chat: Chat, prompt: str) -> str:
    """Return what `marked` has returned as a template that changes it renders it; `split_tokens` makes tokens of it.

    Raises InvalidRequestError where the template does not take this one.
    """
    assert chat.template is not None
    found = await _run(msgspec.structs.replace(chat.template, prompt=prompt), ChatText)
    if isinstance(found, str):
        raise InvalidRequestError(
            f"field prompt: the model's chat template does not take it ({found[:200]!r})",
            hint="`--raw` gives the model the prompt as it is",
            field="prompt",
            rule="what the model's chat template takes",
        )
    return found.text


async def _run(template: ChatTemplate, kind: type[T]) -> T | str:
    """Have a template rendered in a process of its own; returns the result, or why there is none."""
    done = await process.run(["chat-template"], stdin=msgspec.json.encode(template), seconds=SECONDS)
    if done is None:
        return f"it was not rendered in {SECONDS:g} s"
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=kind)
        return msgspec.json.decode(done.stdout, type=dict[str, str]).get("reason", "")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return process.describe_end(done.returncode)


def tokens(vocabulary: Vocabulary, frame: ChatFrame, prompt: str) -> list[int]:
    """Return the tokens of a prompt in its frame; what looks like a control token in the prompt is text."""
    if frame.strips:
        prompt = prompt.strip()
    begin = _wants_begin(vocabulary, frame.before)
    if not _has_control(vocabulary, prompt):
        return vocabulary.tokenize(f"{frame.before}{prompt}{frame.after}", begin=begin, control=True)
    # In parts, although a tokenizer may see their edges otherwise than it would in one text.
    return [
        *vocabulary.tokenize(frame.before, begin=begin, control=True),
        *vocabulary.tokenize(prompt, begin=False),
        *vocabulary.tokenize(frame.after, begin=False, control=True),
    ]


def split_tokens(vocabulary: Vocabulary, text: str) -> list[int]:
    """Return the tokens of what `rendered` has returned."""
    parts = text.split(MARK)
    begin = _wants_begin(vocabulary, parts[0])
    found = vocabulary.tokenize(parts[0], begin=begin, control=True)
    for part in parts[1:]:
        found += vocabulary.tokenize(part, begin=False, control=True)
    return found


def _wants_begin(vocabulary: Vocabulary, text: str) -> bool:
    # A template may write the begin token itself.
    return not (vocabulary.begin_text and text.startswith(vocabulary.begin_text))


def _has_control(vocabulary: Vocabulary, prompt: str) -> bool:
    return vocabulary.tokenize(prompt, begin=False) != vocabulary.tokenize(prompt, begin=False, control=True)


def marked(vocabulary: Vocabulary, prompt: str) -> str:
    """Return a prompt in which each control token is cut in two by MARK, so that it is text wherever it is put.

    It blocks for as long as a long prompt takes to be tokenised several times.
    """
    prompt = prompt.replace(MARK, "")
    if not _has_control(vocabulary, prompt):
        return prompt
    cut = "".join(f"{letter}{MARK}" if letter in _OPENING else letter for letter in prompt)
    if any(_has_control(vocabulary, part) for part in cut.split(MARK)):
        cut = MARK.join(prompt)
    return cut
