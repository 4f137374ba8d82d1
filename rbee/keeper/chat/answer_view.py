"""Shows an answer while it is written: drawn on a terminal, and plain everywhere else."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, Protocol

import trio

from rbee.keeper.output import render
from rbee.keeper.output.terminal import STDOUT
from rbee.keeper.output.text import Stdout, Text

if TYPE_CHECKING:
    from rbee.keeper.chat.live_markdown import LiveMarkdown
    from rbee.keeper.output.terminal import Terminal

FRAME_SECONDS: Final = 0.04
"""Between two drawings."""
WRITING_SECONDS: Final = 1.0
"""For a terminal to take a drawing; one that is stopped (Ctrl+S) takes none."""
COST: Final = 15
"""A drawing is followed by so many times its own time: the processor is there for the model."""
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class AnswerView(Protocol):
    """One answer; after the last piece call `end`, or `cut` where it broke off."""

    async def reasoning(self, piece: str) -> None:
        """Show more of what the model thinks before it answers."""

    async def text(self, piece: str) -> None:
        """Show more of the answer."""

    async def end(self) -> None: ...

    async def cut(self) -> None: ...

    async def keep_fresh(self) -> None:
        """Draw what has come, beside whoever brings it, until this is cancelled."""


def view(terminal: Terminal) -> AnswerView:
    return DrawnAnswer(terminal) if terminal.draws_text else PlainAnswer(terminal)


class PlainAnswer:
    """An answer as the model writes it. What it thinks is shown to people alone: a pipe gets the answer."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._text = Text(terminal)
        self._thinks = False
        self._has_begun = False

    async def reasoning(self, piece: str) -> None:
        if not self._terminal.is_shown:
            return
        if not self._thinks:
            self._thinks = True
            piece = f"(thinking) {piece.lstrip()}"
        await self._text.write(piece)

    async def text(self, piece: str) -> None:
        if not self._has_begun:
            if not (piece := piece.lstrip()):
                return
            self._has_begun = True
            piece = f"\n\n{piece}" if self._thinks else piece
        await self._text.write(piece)

    async def end(self) -> None:
        await self._text.end()

    async def cut(self) -> None:
        await self._text.cut()

    async def keep_fresh(self) -> None:
        pass  # each piece is written when it comes


class DrawnAnswer:
    """An answer drawn as Markdown, and before it what the model thinks, dimmed."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._out = Stdout()
        self._markdown: LiveMarkdown | None = None
        self._has_begun = False
        self._thought = ""
        """The last characters of the reasoning."""
        self._changed = trio.Event()
        self._writing = trio.Lock()

    async def reasoning(self, piece: str) -> None:
        self._begin()
        if not self._thought:
            piece = piece.lstrip()
        shown = render.clean_generated(piece)
        if shown:
            self._thought = (self._thought + shown)[-2:]
            await self._out.send(f"{_DIM}{shown}{_PLAIN}".encode("utf-8", "replace"))

    async def text(self, piece: str) -> None:
        self._begin()
        if self._markdown is None:
            if not piece.strip():
                return
            await self._end_thought()
            from rbee.keeper.chat.live_markdown import LiveMarkdown  # with rich: 80 ms, which the first words hide

            self._markdown = LiveMarkdown(_size)
        self._markdown.feed(piece)
        self._changed.set()

    async def keep_fresh(self) -> None:
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            began = time.monotonic()
            async with self._writing:
                if self._markdown is not None:
                    await self._send(self._markdown.frame())
            await trio.sleep(max(FRAME_SECONDS, COST * (time.monotonic() - began)))

    async def end(self) -> None:
        if self._markdown is not None:
            async with self._writing:
                await self._send(self._markdown.finish())
        elif self._thought:
            await self._send("" if self._thought.endswith("\n") else "\n")
        if self._has_begun:
            self._terminal.end_text()

    async def cut(self) -> None:
        await self.end()

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._terminal.begin_text()

    async def _end_thought(self) -> None:
        if self._thought:
            await self._send("\n" * (2 - (len(self._thought) - len(self._thought.rstrip("\n")))))

    async def _send(self, text: str) -> None:
        # Whole, whoever is cancelled meanwhile: the next drawing begins where this one ends.
        with trio.move_on_after(WRITING_SECONDS, shield=True):
            await self._out.send(text.encode("utf-8", "replace"))


def _size() -> tuple[int, int]:
    """Return columns and rows of the terminal as it is now; one may not know, and say 0."""
    try:
        columns, rows = os.get_terminal_size(STDOUT)
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24
