"""Shows one line on stderr that is replaced and, at the end, erased."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from rbee.keeper.output.columns import columns, cut_end

STDERR: Final = 2
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_ECHO: Final = len("^C")
"""What a terminal writes behind the line when the user interrupts the command."""


class StatusLine:
    """The last line of a terminal while a command works; it never wraps, because a part of it would then stay.

    It is erased with blanks: with NO_COLOR no control sequence is written.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._text = ""
        self._columns = 0
        """Columns of the screen that are written."""

    def show(self, text: str) -> None:
        """Show this text in place of the last one."""
        self.hide()
        self._text = text
        self._draw()

    @property
    def is_shown(self) -> bool:
        return self._columns > 0

    def hide(self) -> None:
        """Erase it, so that something else can be written; `redraw` brings it back below that."""
        if self._columns:
            self._write(f"\r{' ' * (self._columns + _ECHO)}\r")
            self._columns = 0

    def redraw(self) -> None:
        if self._text and not self._columns:
            self._draw()

    def clear(self) -> None:
        """Erase it for good."""
        self.hide()
        self._text = ""

    def _draw(self) -> None:
        try:
            room = os.get_terminal_size(STDERR).columns - _ECHO
        except OSError:
            room = 0
        text = cut_end(self._text, room if room > 0 else 78)
        self._columns = columns(text)
        self._write(f"{_DIM}{text}{_PLAIN}" if self._colours else text)

    @staticmethod
    def _write(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(STDERR, text.encode("utf-8", "replace"))
