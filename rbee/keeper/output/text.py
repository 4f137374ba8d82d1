"""Writes generated text to stdout as it arrives."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import StorageError
from rbee.keeper.output import render
from rbee.keeper.output.terminal import STDOUT, OutputClosedError, is_waitable, write_stdout

if TYPE_CHECKING:
    from rbee.keeper.output.terminal import Terminal

PIPE_BYTES: Final = 4096
"""Bytes that a writable pipe accepts without blocking (PIPE_BUF on Linux, pipe(7))."""


class Stdout:
    """Asynchronous stdout: while the reader has stopped reading (`| less`), Ctrl+C still works."""

    def __init__(self) -> None:
        self._waits = is_waitable(STDOUT)

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises OutputClosedError if the reader has gone."""
        view = memoryview(data)
        while view:
            if self._waits:
                await trio.lowlevel.wait_writable(STDOUT)
            try:
                view = view[write_stdout(view[:PIPE_BYTES]) :]
            except BlockingIOError:
                self._waits = True

    @staticmethod
    def send_now(data: bytes) -> None:
        """Write what can be written without waiting, as the last output; a reader that has gone is ignored."""
        with contextlib.suppress(BlockingIOError, OutputClosedError, StorageError):
            write_stdout(data)


class Text:
    """The generated text of one command; call `end` or `cut` after the last piece."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._out = Stdout()
        self._on_screen = terminal.is_shown
        self._last = ""

    async def write(self, piece: str) -> None:
        """Write a piece. Raises OutputClosedError if the reader has gone."""
        if not piece:
            return
        if not self._last:
            self._terminal.begin_text()
        self._last = piece[-1]
        shown = render.clean_generated(piece) if self._on_screen else piece
        await self._out.send(shown.encode("utf-8", "replace"))

    async def end(self) -> None:
        """Write the newline that ends the output, also after text that ends with one."""
        await self._out.send(b"\n")
        self._terminal.end_text()

    async def cut(self) -> None:
        """Stop in the middle of the text; a terminal gets a newline, a file gets nothing but text."""
        if not self._last:
            return
        if self._last != "\n" and self._terminal.needs_fresh_line:
            await self._out.send(b"\n")
        self._terminal.end_text()
