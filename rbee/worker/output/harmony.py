"""Reads what gpt-oss and Muse write: messages in channels, each to somebody (PURE).

The protocol is OpenAI's harmony format, https://github.com/openai/harmony (docs/format.md). A message is
`<|start|>assistant<|channel|>NAME to=RECIPIENT <|constrain|>TYPE<|message|>…` and ends with `<|end|>`, `<|call|>` or
`<|return|>`; the prompt ends with the role of the first, and the recipient may stand there too. Muse has recipients in
place of channels, `self` and `user` among them, ends messages with `<|eom|>`, and writes arguments between tags.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.worker.output.calls.parameters import ParameterCalls
from rbee.worker.output.source import Markers, NotACall, Reading

if TYPE_CHECKING:
    from rbee.worker.output.calls.reader import CallReader

_BEGINS: Final = Markers(["<|start|>", "<|channel|>", "<|message|>", " to=", "to=", "<|constrain|>"])
_MESSAGE: Final = Markers(["<|message|>"])
_FINISHED: Final = Markers(["<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>"])
_ENDS: Final = Markers([*_FINISHED.literals, "<|start|>", "<|channel|>"])
_TAGS: Final = Markers(["<atem:function_calls>"])
_MOST_HEADER: Final = 1000
_PEOPLE: Final = ("self", "user")
"""Recipients that are no tools."""
_RECIPIENT: Final = re.compile(r"\bto=(\S+?)(?=<\||\s|$)")
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_UNFINISHED: Final = re.compile(
    r"(<\|start\|>\w*)?(<\|channel\|>\s*\w*|to=[^\s<]*|<\|constrain\|>\w*|\s)*(<\|?[a-z]*\|?)?"
)
"""A header that the end of the text has cut off."""


def read(calls: CallReader, *, is_thinking: bool) -> Reading[None]:
    """Read all messages; the first is a thought that has begun, if `is_thinking`."""
    source, answer = calls.source, calls.answer
    if is_thinking:
        answer.leave("reasoning")
        yield from _pass(calls, is_thought=True)
    while (yield from source.peek()):
        if not (yield from calls.attempt(_message(calls))):
            # No message of that form: what was written is the answer, up to where one begins.
            answer.leave("text")
            answer.text(source.take(1))
            yield from _pass(calls, is_thought=False)


def _message(calls: CallReader) -> Reading[None]:
    source, answer = calls.source, calls.answer
    if not (yield from source.next_is(_BEGINS)):
        raise NotACall
    header, end = yield from source.take_until(_MESSAGE, _MOST_HEADER)
    if end is None:
        if _UNFINISHED.fullmatch(header):
            return
        raise NotACall
    source.take(len(end))
    found = _RECIPIENT.search(header)
    recipient = found[1] if found else "user"
    channel = _CHANNEL.search(header)
    if recipient not in _PEOPLE and (yield from calls.attempt(_call(calls, recipient.removeprefix("functions.")))):
        return
    is_thought = recipient == "self" or (channel is not None and channel[1] == "analysis" and not found)
    answer.leave("reasoning" if is_thought else "text")
    if not is_thought:
        answer.begin_paragraph()
    yield from _pass(calls, is_thought=is_thought)


def _call(calls: CallReader, name: str) -> Reading[None]:
    source = calls.source
    yield from source.skip()
    if calls.syntax.arguments == "parameters" and (marker := (yield from source.take_if(_TAGS))):
        yield from ParameterCalls(calls).read(marker)
    elif not (yield from source.peek()) or (yield from source.next_is(_ENDS)):
        calls.give(name, {})
    else:
        yield from calls.read_arguments(name)
    yield from source.skip()
    yield from source.take_if(_FINISHED)


def _pass(calls: CallReader, *, is_thought: bool) -> Reading[None]:
    show = calls.answer.reasoning if is_thought else calls.answer.text
    yield from calls.source.pass_until(_ENDS, show)
    yield from calls.source.take_if(_FINISHED)
