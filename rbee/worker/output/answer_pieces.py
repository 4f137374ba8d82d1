"""Makes the pieces of an answer: text without stop strings, reasoning, and tool calls with their ids (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from rbee.wire.chat.answer import ReasoningDelta, TextDelta, ToolCallBegan, ToolCallDelta
from rbee.worker.output.calls.repeats import CallRepeats
from rbee.worker.output.source import SPACE
from rbee.worker.output.stop_strings import StopStrings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AnswerPiece = TextDelta | ReasoningDelta | ToolCallBegan | ToolCallDelta
Channel = Literal["text", "reasoning", "call"]


class _Saved(NamedTuple):
    """What is to be as it was where a call turns out to be none."""

    pieces: int
    ids: frozenset[str]
    calls: int
    space: str
    strips: bool
    channel: Channel
    made: int


class AnswerPieces:
    """The pieces of one choice, of which `take` returns what is new.

    White space that models write around reasoning and calls is no part of the answer, unless there is text on both
    sides. With `unrepeated` the first call that repeats an earlier one ends the answer, and is no part of it.
    """

    def __init__(
        self, choice: int, stops: Sequence[str], new_id: Callable[[int, str], str], *, single: bool, unrepeated: bool
    ) -> None:
        self._choice = choice
        self._stops = StopStrings(stops)
        self._new_id = new_id
        self._single = single
        self._pieces: list[AnswerPiece] = []
        self._ids: frozenset[str] = frozenset()
        self._space = ""
        """White space that is shown only if more follows it."""
        self._gap = ""
        """White space that stood between the text and what interrupted it."""
        self._strips = False
        """Whether white space comes next that is not shown."""
        self.calls = 0
        self.channel: Channel = "text"
        self.has_text = False
        self.is_held = False
        """Whether `take` has to wait: what was begun last may turn out to be something else."""
        self._is_cut = False
        self._repeats = CallRepeats() if unrepeated else None
        self._call_at = 0
        """Where the pieces of the last call begin, as long as none of them is taken."""

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the answer."""
        return self._stops.found

    @property
    def is_done(self) -> bool:
        """Whether nothing that follows belongs to the answer."""
        return self._is_cut or self.stop_string is not None

    def take(self) -> list[AnswerPiece]:
        """Return the pieces that are new."""
        if self.is_held or (self._repeats is not None and self._repeats.is_open):
            return []
        pieces, self._pieces = self._pieces, []
        return pieces

    def text(self, text: str) -> None:
        """The answer goes on."""
        if self.channel != "text":
            self._change("text")
        if self._strips:
            text = text.lstrip(SPACE)
        if text and not self.is_done:
            if self._strips and self.has_text:
                self._space, self._gap = self._gap, ""
            self._strips = False
            self._show(self._stops.feed(text))

    def reasoning(self, text: str) -> None:
        """The thoughts go on."""
        if self.channel != "reasoning":
            self._change("reasoning")
        if self._strips:
            text = text.lstrip(SPACE)
        if text and not self.is_done:
            self._strips = False
            self._show(text)

    def begin_call(self, name: str, call_id: str | None = None) -> None:
        """A call begins; without an id, or with one that is taken, it gets a new one."""
        self._change("call")
        if self.is_done:
            return
        number = self.calls
        while call_id is None or call_id in self._ids:
            call_id = self._new_id(number, name)
            number += 1
        self._ids |= {call_id}
        self._call_at = len(self._pieces)
        if self._repeats is not None:
            self._repeats.begin(name)
        self._pieces.append(ToolCallBegan(choice=self._choice, index=self.calls, id=call_id, name=name))
        self.calls += 1

    def arguments(self, text: str) -> None:
        """The arguments of the call that was begun last go on."""
        if self.is_done or not text:
            return
        if self._repeats is not None:
            self._repeats.add(text)
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, ToolCallDelta):
            text = last.arguments + text
            self._pieces.pop()
        self._pieces.append(ToolCallDelta(choice=self._choice, index=self.calls - 1, arguments=text))

    def end_call(self) -> None:
        """The call that was begun last is complete."""
        if self.is_done:
            return
        self._is_cut = self._single
        self._strips = True
        if self._repeats is not None and self._repeats.end():
            del self._pieces[self._call_at :]
            self.calls -= 1
            self._is_cut = True

    def leave(self, channel: Channel) -> None:
        """What was open ends, as its marker says; what follows belongs there."""
        self._change(channel)
        self._strips = True

    def begin_paragraph(self) -> None:
        """What follows is another message of the answer."""
        self._gap = "\n\n"

    def finish(self) -> None:
        """The text of the model has ended."""
        if self.channel == "text":
            self._show(self._stops.flush())
            self._append(self._space)
        elif self._repeats is not None:
            self._repeats.end()
        self._space = ""

    def mark(self) -> _Saved:
        """Return what `go_back` needs to take back the pieces from here on; none may be taken meanwhile."""
        made = 0 if self._repeats is None else self._repeats.mark()
        return _Saved(len(self._pieces), self._ids, self.calls, self._space, self._strips, self.channel, made)

    def go_back(self, saved: _Saved) -> None:
        """Take back what came since."""
        del self._pieces[saved.pieces :]
        self._ids, self.calls, self._space, self._strips, self.channel, made = saved[1:]
        if self._repeats is not None:
            self._repeats.go_back(made)
        self._is_cut = False

    def _change(self, channel: Channel) -> None:
        if self.is_done:
            return
        if self.channel == "text":
            self._show(self._stops.flush())
            self._gap = self._space or self._gap
        self._space = ""
        self._strips = self._strips or self.channel != channel or channel == "call"
        self.channel = channel

    def _show(self, text: str) -> None:
        """Show text but for the white space that it ends with."""
        shown = (self._space + text).rstrip(SPACE)
        whole = self._space + text
        self._space = whole[len(shown) :]
        self._append(shown)

    def _append(self, text: str) -> None:
        if not text:
            return
        last = self._pieces[-1] if self._pieces else None
        if self.channel == "reasoning":
            if isinstance(last, ReasoningDelta):
                text = last.text + text
                self._pieces.pop()
            self._pieces.append(ReasoningDelta(choice=self._choice, text=text))
            return
        self.has_text = True
        if isinstance(last, TextDelta):
            text = last.text + text
            self._pieces.pop()
        self._pieces.append(TextDelta(choice=self._choice, text=text))
