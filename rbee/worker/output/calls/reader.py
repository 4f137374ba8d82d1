"""What the readers of all formats need to make a call of a text (PURE)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.worker.output.calls.ids import is_id
from rbee.worker.output.calls.json_text import JsonText
from rbee.worker.output.source import Markers, NotACall, Reading, TextSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rbee.wire.chat.conversation import Tool
    from rbee.worker.output.answer_pieces import AnswerPieces
    from rbee.worker.output.syntax import IdStyle, ToolSyntax

MOST_HEADER: Final = 600
"""Characters between the beginning of a call and its arguments: a name has up to 256, and an id holds it once more."""

_FENCES: Final = Markers(["```json", "```"])


def decoded_object(text: str) -> dict[str, object]:
    """Return the JSON object that a text is.

    Raises:
        NotACall: it is none.
    """
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # msgspec's own error is a ValueError
        raise NotACall from None
    if not isinstance(value, dict):
        raise NotACall
    return value


def decoded_text(text: str) -> str:
    """Return the string that a JSON text is.

    Raises:
        NotACall: it is none.
    """
    try:
        return msgspec.json.decode(text, type=str)
    except ValueError:
        raise NotACall from None


def json_text(value: object) -> str:
    """Return a value as JSON.

    Raises:
        NotACall: it cannot be written so.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair can be written as an escape only
        return json.dumps(value)
    except (ValueError, TypeError, RecursionError):
        raise NotACall from None
    return text


class CallReader:
    """Reads calls of the offered tools from a source, and gives them to the answer."""

    def __init__(
        self, source: TextSource, answer: AnswerPieces, tools: Mapping[str, Tool], syntax: ToolSyntax, *, ids: IdStyle
    ) -> None:
        self.source: Final = source
        self.answer: Final = answer
        self.tools: Final = tools
        self.syntax: Final = syntax
        self._ids = ids
        self._closers = Markers([*syntax.closers, "</tool_call>", "```"])
        self._ends_raw = Markers([*syntax.closers, *syntax.triggers])
        self.must_be_whole = False
        """Whether a call whose arguments are not complete and right is none; else what has come is passed on."""

    def attempt(self, reading: Reading[None]) -> Reading[bool]:
        """Read a call; return False, and go back to where it began, if it is none."""
        self.source.mark()
        try:
            yield from reading
        except NotACall:
            self.source.go_back()
            return False
        self.source.unmark()
        return True

    def check_is_offered(self, name: str) -> None:
        """Raise NotACall if the model may not call this."""
        if name not in self.tools:
            raise NotACall

    def give(self, name: str, arguments: Mapping[str, object], call_id: str | None = None) -> None:
        """Give a whole call to the answer."""
        self.check_is_offered(name)
        text = json_text(arguments)
        self._begin(name, call_id)
        self.answer.arguments(text)
        self.answer.end_call()

    def skip_fence(self) -> Reading[None]:
        """Skip white space, and the line that begins or ends fenced code."""
        yield from self.source.skip()
        yield from self.source.take_if(_FENCES)
        yield from self.source.skip()

    def skip_closers(self) -> Reading[bool]:
        """Skip white space and what ends calls; return whether that was there: models leave it out now and then."""
        is_there = False
        yield from self.source.skip()
        while (yield from self.source.take_if(self._closers)):
            is_there = True
            yield from self.source.skip()
        return is_there

    def read_arguments(self, name: str, call_id: str | None = None) -> Reading[None]:
        """Read arguments that are JSON, and pass them on as they come."""
        self.check_is_offered(name)
        yield from self.source.skip()
        opening = yield from self.source.peek()
        if opening == '"':
            text = yield from self.read_value()
            inner = decoded_text(text)
            decoded_object(inner)
            self._begin(name, call_id)
            self.answer.arguments(inner)
        elif opening == "{":
            yield from self._pass_arguments(name, call_id)
        elif (yield from self.read_value()) == "null":
            self.give(name, {}, call_id)
            return
        else:
            raise NotACall
        self.answer.end_call()

    def read_value(self) -> Reading[str]:
        """Take a JSON value, which a comma or a bracket follows; return its text, mended.

        Raises:
            NotACall: it is no JSON, or not complete.
        """
        value = JsonText()
        text = ""
        while True:
            self.source.take(value.read(self.source.rest()))
            text += value.mended
            if value.is_done:
                return text
            if value.is_wrong or not (yield from self.source.more()):
                raise NotACall

    def _pass_arguments(self, name: str, call_id: str | None) -> Reading[None]:
        value = JsonText()
        ahead = ""
        is_begun = False
        while True:
            self.source.take(value.read(self.source.rest()))
            ahead += value.mended
            if value.has_begun:
                if not is_begun:
                    self._begin(name, call_id)
                    is_begun = True
                self.answer.arguments(ahead)
                ahead = ""
            if value.is_done:
                return
            if not value.is_wrong and (yield from self.source.more()):
                continue
            if self.must_be_whole or not is_begun:
                raise NotACall
            # The call has been told. Its rest is passed on as it was written, so that it may be mended elsewhere.
            yield from self.source.pass_until(self._ends_raw, self.answer.arguments)
            return

    def _begin(self, name: str, call_id: str | None) -> None:
        self.answer.begin_call(name, call_id if call_id and is_id(call_id, name, self._ids) else None)
