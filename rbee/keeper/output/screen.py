"""Shows a text that changes: full-screen on a terminal, one version after the other elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from rbee.keeper.output import render
from rbee.keeper.output.columns import cut_end
from rbee.keeper.output.text import Stdout

if TYPE_CHECKING:
    from rbee.keeper.output.terminal import Terminal

_ENTER: Final = b"\x1b[?1049h\x1b[?25l"
"""Switch to the alternate screen and hide the cursor (xterm's control sequences)."""

_LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
"""Show the cursor and switch back; the terminal shows again what it showed before."""


class Screen:
    """The terminal while a text is shown full-screen; `async with` restores it."""

    def __init__(self, terminal: Terminal) -> None:
        self._out = Stdout()
        self._draws = terminal.is_shown and os.environ.get("TERM", "dumb") not in ("", "dumb")
        self._last: str | None = None

    async def __aenter__(self) -> Self:
        if self._draws:
            await self._out.send(_ENTER)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._draws:
            self._out.send_now(_LEAVE)

    async def show(self, text: str) -> None:
        """Show this text in place of the last; elsewhere than on a terminal only if it differs."""
        if not self._draws:
            if text != self._last:
                await self._out.send(f"{text}\n\n".encode())
        else:
            await self._out.send(_frame(text, *os.get_terminal_size(1)))
        self._last = text


def _frame(text: str, columns: int, rows: int) -> bytes:
    """Return bytes that draw `text` over the last frame; lines are cut, because one that wraps would shift the rest."""
    lines = [cut_end(render.clean(line), columns) for line in text.split("\n")]
    if len(lines) > rows:
        lines[rows - 1 :] = ["…"]
    return ("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J").encode("utf-8", "replace")
