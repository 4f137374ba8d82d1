"""Keeps what is typed while an answer is written off the screen, and for the next line."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = 0


@contextlib.contextmanager
def unechoed(*, lasts: bool = False) -> Iterator[None]:
    """Have the terminal show no keys in the block; Ctrl+C is a signal still.

    What is typed waits as it was typed, so that Enter is not turned into another key (tcsetattr(3): ICRNL). With
    `lasts` it is so again after Ctrl+Z and `fg`, before which the shell sets up the terminal for itself. Such a block
    stands in the main thread, and nothing else in it sets up the terminal.
    """
    if not os.isatty(STDIN):
        yield
        return
    before = termios.tcgetattr(STDIN)
    quiet = [*before]
    quiet[0] = before[0] & ~termios.ICRNL
    quiet[3] = before[3] & ~(termios.ECHO | termios.ICANON)

    def again(*_: object) -> None:
        with contextlib.suppress(termios.error, OSError):  # the terminal has gone
            if os.tcgetpgrp(STDIN) == os.getpgrp():  # in the background, setting it would stop us once more
                termios.tcsetattr(STDIN, termios.TCSANOW, quiet)

    handler = signal.signal(signal.SIGCONT, again) if lasts else None
    try:
        termios.tcsetattr(STDIN, termios.TCSANOW, quiet)
        yield
    finally:
        if lasts:
            signal.signal(signal.SIGCONT, handler)
        with contextlib.suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(STDIN, termios.TCSANOW, before)
