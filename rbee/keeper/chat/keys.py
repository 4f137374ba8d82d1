"""Keeps what is typed while an answer is written off the screen, and for the next line."""

from __future__ import annotations

import contextlib
import os
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = 0


@contextlib.contextmanager
def unechoed() -> Iterator[None]:
    """Have the terminal show no keys in the block; Ctrl+C is a signal still.

    What is typed waits as it was typed, so that Enter is not turned into another key (tcsetattr(3): ICRNL).
    """
    if not os.isatty(STDIN):
        yield
        return
    before = termios.tcgetattr(STDIN)
    quiet = [*before]
    quiet[0] = before[0] & ~termios.ICRNL
    quiet[3] = before[3] & ~(termios.ECHO | termios.ICANON)
    try:
        termios.tcsetattr(STDIN, termios.TCSANOW, quiet)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(STDIN, termios.TCSANOW, before)
