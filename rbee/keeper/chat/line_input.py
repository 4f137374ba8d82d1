"""Where the chat's messages come from: lines, of a pipe, a file, or a terminal that can do no more."""

from __future__ import annotations

import codecs
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

import trio

from rbee.keeper.chat import slash
from rbee.keeper.output.terminal import is_waitable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rbee.keeper.output.terminal import Terminal

STDIN: Final = 0
PROMPT: Final = "> "
_CHUNK: Final = 1 << 16


class MessageInput(Protocol):
    """Gives one message after the other."""

    @property
    def is_interactive(self) -> bool:
        """Whether somebody sits there, who can try again what has failed."""

    async def read(self) -> str | None:
        """Return the next message or command, which may be empty; None at the end."""

    def keeps_keys(self) -> AbstractContextManager[None]:
        """Have keys wait unseen in the block, but where a message is read."""

    def on_interrupt(self) -> bool:
        """Ctrl+C came as a signal while a message was read; returns whether that was all it meant."""


class LineInput:
    """Standard input, line by line; a message that begins with three quotation marks ends with such."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._waits = is_waitable(STDIN)
        self._rest = ""
        self._has_ended = False
        self._is_reading = False
        self._lines: list[str] = []

    @property
    def is_interactive(self) -> bool:
        return os.isatty(STDIN)

    async def read(self) -> str | None:
        self._lines = []
        self._show_prompt()
        self._is_reading = True
        try:
            while (line := await self._line()) is not None:
                self._lines.append(line)
                if not slash.is_open("\n".join(self._lines)):
                    break
                self._show_prompt()
        finally:
            self._is_reading = False
        return "\n".join(self._lines) if self._lines or line is not None else None

    def keeps_keys(self) -> AbstractContextManager[None]:
        return nullcontext()  # the terminal itself edits the lines

    def on_interrupt(self) -> bool:
        if not (self.is_interactive and self._is_reading):
            return False
        self._lines, self._rest = [], ""
        self._terminal.prompt("\n")
        self._show_prompt()
        return True

    def _show_prompt(self) -> None:
        if self.is_interactive:
            self._terminal.prompt("  " if self._lines else PROMPT)

    async def _line(self) -> str | None:
        while "\n" not in self._rest and not self._has_ended:
            if self._waits:
                await trio.lowlevel.wait_readable(STDIN)
            data = os.read(STDIN, _CHUNK)
            self._has_ended = not data
            self._rest += self._decoder.decode(data, final=not data)
        if not self._rest:
            # At a terminal the end is Ctrl+D, which leaves the cursor behind the prompt.
            if self.is_interactive:
                self._terminal.prompt("\n")
            return None
        line, _, self._rest = self._rest.partition("\n")
        return line.removesuffix("\r")
