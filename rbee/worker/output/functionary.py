"""Reads what Functionary 3.2 writes: messages, each to somebody, with `>>>` between them (PURE).

A message is RECIPIENT, a line end, and what it is told: everybody (`all`) a text, and a tool its arguments. The prompt
ends with the first `>>>`. https://github.com/MeetKai/functionary
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.worker.output.source import Markers, NotACall, Reading

if TYPE_CHECKING:
    from rbee.worker.output.calls.reader import CallReader
    from rbee.worker.output.syntax import AnswerSyntax

_BEGIN: Final = Markers([">>>"])
_LINE_END: Final = Markers(["\n"])
_EVERYBODY: Final = "all"
_MOST_RECIPIENT: Final = 300


def read(calls: CallReader, syntax: AnswerSyntax, *, is_thinking: bool) -> Reading[None]:
    """Read all messages; before them is a thought that has begun, if `is_thinking`."""
    source, answer = calls.source, calls.answer
    if is_thinking or (yield from source.take_if(Markers(syntax.reasoning.begins))):
        answer.leave("reasoning")
        if end := (yield from source.pass_until(Markers(syntax.reasoning.ends), answer.reasoning)):
            source.take(len(end))
        answer.leave("text")
    yield from source.take_if(_BEGIN)
    if not (yield from calls.attempt(_message(calls))):
        yield from source.pass_until(_BEGIN, answer.text)
    while (yield from source.peek()):
        source.take(len(_BEGIN.literals[0]))
        if not (yield from calls.attempt(_message(calls))):
            answer.text(_BEGIN.literals[0])
            yield from source.pass_until(_BEGIN, answer.text)


def _message(calls: CallReader) -> Reading[None]:
    """Read one message, up to where the next begins."""
    source, answer = calls.source, calls.answer
    recipient, end = yield from source.take_until(_LINE_END, _MOST_RECIPIENT)
    recipient = recipient.strip()
    if recipient == _EVERYBODY:
        source.take(len(end or ""))
        answer.leave("text")
        answer.begin_paragraph()
        yield from source.pass_until(_BEGIN, answer.text)
        return
    if end is None:
        raise NotACall
    yield from calls.read_arguments(recipient)
    yield from source.skip()
    if (yield from source.peek()) and not (yield from source.next_is(_BEGIN)):
        answer.leave("text")
        yield from source.pass_until(_BEGIN, answer.text)
