"""Parts what a model writes into text, reasoning and tool calls while it is written (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.worker.output import functionary, harmony, json_formats
from rbee.worker.output.answer_pieces import AnswerPiece, AnswerPieces, Channel
from rbee.worker.output.calls import elements, gemma, json_objects, named, pythonic
from rbee.worker.output.calls.ids import new_id_of
from rbee.worker.output.calls.parameters import ParameterCalls
from rbee.worker.output.calls.reader import CallReader
from rbee.worker.output.source import Markers, NotACall, Reading, TextSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rbee.wire.chat.conversation import Tool
    from rbee.worker.output.syntax import AnswerSyntax

_OPENINGS: Final = "{[`"
"""How a call may begin that nothing marks as one: an object, a list, or fenced code of one."""

_HERMES: Final = json_formats.HERMES.tools.triggers
"""How models of all families begin calls now and then: where their template knows no tools, we tell them so."""

_LINES: Final = ("\n{", "\n[")
"""How one may begin behind other text, in families that mark none."""


class OutputParser:
    """Reads one choice of an answer.

    `stops` are the caller's stop strings: they end the answer, and mean nothing in reasoning and calls. What only
    looks like a call, or names a tool that is not offered, is text. The pieces, joined, do not depend on how the text
    is cut. With `single_call` the first call ends the answer, and with `unrepeated` one that was made before, which is
    no part of it. White space between thoughts, text and calls is left out, as far as no text goes on behind it.
    """

    def __init__(
        self,
        syntax: AnswerSyntax,
        tools: Sequence[Tool] = (),
        *,
        is_thinking: bool = False,
        choice: int = 0,
        stops: Sequence[str] = (),
        single_call: bool = False,
        unrepeated: bool = False,
        new_id: Callable[[int, str], str] | None = None,
    ) -> None:
        self._syntax = syntax
        self._source = TextSource()
        self._answer = AnswerPieces(
            choice, stops, new_id or new_id_of(syntax.ids), single=single_call, unrepeated=unrepeated
        )
        self._calls = CallReader(
            self._source,
            self._answer,
            {tool.name: tool for tool in tools},
            syntax.tools,
            ids=syntax.ids,
        )
        reasoning, text = syntax.reasoning, syntax.text
        self._own_openers: Final = (*syntax.tools.triggers, *syntax.tools.also)
        self._openers: Final = Markers([*self._own_openers, *_HERMES] if tools else [])
        anywhere = [*self._openers.literals, *((*reasoning.begins, *reasoning.ends) if reasoning.is_anywhere else ())]
        self._at_start: Final = Markers([*anywhere, *reasoning.begins, *reasoning.ends, *text.begins])
        anywhere += _LINES if tools and not syntax.tools.triggers else ()
        self._in_text: Final = Markers(anywhere)
        self._in_wrapped_text: Final = Markers([*anywhere, *text.ends])
        self._in_thoughts: Final = Markers([*reasoning.ends, *self._openers.literals])
        self._thought_begins: Final = Markers(reasoning.begins)
        self._is_wrapped = False
        """Whether what stands before the answer itself has come, so that what stands after it may."""
        self._reading = self._read(is_thinking)

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the answer."""
        return self._answer.stop_string

    @property
    def is_done(self) -> bool:
        """Whether nothing that follows belongs to the answer: a stop string has come, or the last call is complete."""
        return self._answer.is_done

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._answer.calls

    @property
    def channel(self) -> Channel:
        """What the text belongs to that came last, as far as that is sure."""
        return self._answer.channel

    def feed(self, text: str) -> list[AnswerPiece]:
        """Take more of the model's text; return the pieces that are sure by now."""
        if self.is_done or not text:
            return []
        self._source.feed(text)
        next(self._reading, None)
        return self._answer.take()

    def finish(self) -> list[AnswerPiece]:
        """The model's text has ended, or `is_done`; return the last pieces."""
        self._source.end()
        if not self.is_done:
            next(self._reading, None)
        self._answer.finish()
        return self._answer.take()

    def _read(self, is_thinking: bool) -> Reading[None]:
        if self._syntax.form == "harmony":
            yield from harmony.read(self._calls, is_thinking=is_thinking)
            return
        if self._syntax.form == "functionary":
            yield from functionary.read(self._calls, self._syntax, is_thinking=is_thinking)
            return
        if is_thinking:
            yield from self._thoughts()
        yield from self._before_text()
        while True:
            markers = self._in_wrapped_text if self._is_wrapped else self._in_text
            marker = yield from self._source.pass_until(markers, self._answer.text)
            if marker is None:
                return
            if marker in _LINES:
                self._answer.text(self._source.take(1))
                yield from self._unmarked_calls()
            else:
                self._source.take(len(marker))
                yield from self._marker(marker)

    def _before_text(self) -> Reading[None]:
        """Read up to where the text of the answer begins."""
        while True:
            self._answer.text((yield from self._source.skip()))
            marker = yield from self._source.take_if(self._at_start)
            if marker is None:
                if not (yield from self._unmarked_calls()):
                    return
            elif not (yield from self._marker(marker)):
                return

    def _marker(self, marker: str) -> Reading[bool]:
        """Read what a marker says that follows it; return False if it is text."""
        reasoning, text = self._syntax.reasoning, self._syntax.text
        if marker in reasoning.begins:
            yield from self._thoughts()
        elif marker in reasoning.ends:
            self._answer.leave("text")
        elif marker in text.begins or marker in text.ends:
            self._is_wrapped = marker in text.begins
            self._answer.leave("text")
        elif not (yield from self._calls.attempt(self._marked_calls(marker))):
            self._answer.text(marker)
            return False
        return True

    def _thoughts(self) -> Reading[None]:
        self._answer.leave("reasoning")
        yield from self._source.skip()
        yield from self._source.take_if(self._thought_begins)  # where the prompt holds it, models write it again
        while True:
            marker = yield from self._source.pass_until(self._in_thoughts, self._answer.reasoning)
            if marker is None:
                return
            self._source.take(len(marker))
            if marker in self._syntax.reasoning.ends:
                self._answer.leave("text")
                return
            if (yield from self._calls_in_thoughts(marker)):
                return
            self._answer.reasoning(marker)

    def _calls_in_thoughts(self, marker: str) -> Reading[bool]:
        """Read calls that the model makes without ending its thoughts; return False if it only thinks about them.

        They are meant if they are whole, and nothing follows them.
        """
        saved = self._answer.mark()
        self._answer.is_held = self._calls.must_be_whole = True
        are_meant = yield from self._calls.attempt(self._last_calls(marker))
        self._answer.is_held = self._calls.must_be_whole = False
        if not are_meant:
            self._answer.go_back(saved)
        return are_meant

    def _last_calls(self, marker: str | None) -> Reading[None]:
        while marker is not None:
            yield from self._marked_calls(marker)
            yield from self._source.skip()
            marker = yield from self._source.take_if(self._openers)
        if (yield from self._source.peek()):
            raise NotACall

    def _marked_calls(self, marker: str) -> Reading[None]:
        """Read the calls that follow a marker."""
        if marker == json_formats.TOOL_CODE:
            yield from pythonic.read(self._calls)
            return
        if marker not in self._own_openers:
            yield from json_objects.read(self._calls)
            return
        match self._syntax.tools.arguments:
            case "elements":
                yield from elements.read(self._calls)
            case "parameters":
                yield from ParameterCalls(self._calls).read(marker)
            case "pythonic":
                yield from pythonic.read(self._calls)
            case "gemma":
                yield from gemma.read(self._calls)
            case "json":
                if self._syntax.tools.name == "text":
                    yield from named.read(self._calls, marker)
                else:
                    yield from json_objects.read(self._calls)

    def _unmarked_calls(self) -> Reading[bool]:
        """Read calls that nothing marks as such; return whether there are some."""
        opening = yield from self._source.peek()
        if not opening or opening not in _OPENINGS or not self._calls.tools:
            return False
        if (yield from self._calls.attempt(json_objects.read(self._calls, is_bare=True))):
            return True
        tools = self._syntax.tools
        if opening != "[" or (tools.arguments != "pythonic" and tools.triggers):
            return False
        return (yield from self._calls.attempt(pythonic.read(self._calls)))
