"""Draws Markdown on a terminal while it is written: what is complete stays, and what may change is drawn again.

Only the lines of the last block are drawn again, and of those only what is on the screen: lines that scroll out of it
stay as they are, since no terminal lets a program change them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.keeper.chat import markdown
from rbee.keeper.output import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.keeper.chat.markdown import DrawnLine

MOST_COLUMNS: Final = 100
"""Longer lines are hard to read."""
_ERASE_BELOW: Final = "\x1b[J"
_UNSURE: Final = dict.fromkeys((0x200D, 0xFE0F, *range(0x1F3FB, 0x1F400)))
"""Joiners, emoji style and skin tones, of which terminals disagree how wide they make a sign: what is to be erased
again is drawn without them."""


class LiveMarkdown:
    """One text on a terminal of `size()` columns and rows; the methods return what is to be written there.

    It begins at the start of a line. Nothing of the text reaches the terminal as a control sequence.
    """

    def __init__(self, size: Callable[[], tuple[int, int]]) -> None:
        self._size = size
        self._text = ""
        """Of the last block, and what follows it."""
        self._is_first = True
        self._kept = 0
        """Lines of the last block that have scrolled, or may have, and stay."""
        self._shown: list[int] = []
        """The columns of each line that is drawn again; the cursor stands at the end of the last one."""

    def feed(self, piece: str) -> None:
        """Take more of the text; `frame` draws it."""
        self._text += render.clean_generated(piece)

    def frame(self, *, is_last: bool = False) -> str:
        """Return what brings the screen up to date."""
        columns, rows = self._size()
        room = min(columns, MOST_COLUMNS)
        out = [self._back_to_start(columns)]
        *complete, last = markdown.blocks(self._text) or [""]
        for block in complete:
            out += [f"{line.text}\n" for line in self._lines(block, room)[self._kept :]]
            self._begin_block()
        if complete:
            self._text = last
        lines = self._lines(last if is_last else last.translate(_UNSURE), room)
        # One row stays free: a terminal scrolls when its last one is left.
        keep = max(self._kept, len(lines) - max(rows - 1, 1))
        out += [f"{line.text}\n" for line in lines[self._kept : keep]]
        self._kept = keep
        shown = lines[keep:]
        out.append("\n".join(line.text for line in shown))
        self._shown = [line.columns for line in shown]
        return "".join(out)

    def finish(self) -> str:
        """Return what draws the rest, and ends its last line."""
        last = self.frame(is_last=True)
        is_line_open = bool(self._shown)
        self._shown = []
        return last + ("\n" if is_line_open or self._is_first else "")

    def _begin_block(self) -> None:
        self._is_first, self._kept = False, 0

    def _lines(self, block: str, room: int) -> list[DrawnLine]:
        lines = markdown.draw(block, room) if block.strip() else []
        return lines if self._is_first or not lines else [markdown.DrawnLine("", 0), *lines]

    def _back_to_start(self, columns: int) -> str:
        """Return what erases the lines that are drawn again; a terminal that became narrower has broken them."""
        if not self._shown:
            return ""
        rows = sum(max(1, -(-width // max(columns, 1))) for width in self._shown)
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return f"\r{up}{_ERASE_BELOW}"
