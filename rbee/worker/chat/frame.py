"""Puts a prompt into the form of the conversation that its model was trained on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.adapters.daemon import process
from rbee.wire.chat_template import ChatFrame, ChatTemplate

if TYPE_CHECKING:
    from rbee.worker.engine.backend import Vocabulary

log = logging.getLogger(__name__)

SECONDS: Final = 10.0
"""How long a template may take to be rendered, in its process."""


async def frame_of(vocabulary: Vocabulary) -> ChatFrame | None:
    """Return what the model's own template puts around a prompt, or None where it has none that can be used."""
    if (template := vocabulary.chat_template) is None:
        return None
    request = ChatTemplate(template=template, begin=vocabulary.begin_text, end=vocabulary.end_text)
    done = await process.run(["chat-template"], stdin=msgspec.json.encode(request), seconds=SECONDS)
    reason = f"it was not rendered in {SECONDS:g} s"
    if done is not None:
        try:
            if done.returncode == 0:
                return msgspec.json.decode(done.stdout, type=ChatFrame)
            reason = msgspec.json.decode(done.stdout, type=dict[str, str]).get("reason", "")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            reason = process.describe_end(done.returncode)
    # repr: what a template says may hold control characters.
    log.warning("the model's chat template cannot be used, and prompts go to it as they are: %r", reason)
    return None


def tokens(vocabulary: Vocabulary, frame: ChatFrame, prompt: str) -> list[int]:
    """Return the tokens of a prompt in its frame; what looks like a control token in the prompt is text."""
    if frame.strips:
        prompt = prompt.strip()
    # A template may write the begin token itself.
    begin = not (vocabulary.begin_text and frame.before.startswith(vocabulary.begin_text))
    if vocabulary.tokenize(prompt, begin=False) == vocabulary.tokenize(prompt, begin=False, control=True):
        return vocabulary.tokenize(f"{frame.before}{prompt}{frame.after}", begin=begin, control=True)
    # In parts, although a tokenizer may see their edges otherwise than it would in one text.
    return [
        *vocabulary.tokenize(frame.before, begin=begin, control=True),
        *vocabulary.tokenize(prompt, begin=False),
        *vocabulary.tokenize(frame.after, begin=False, control=True),
    ]
