"""A terminal in which a program runs; what it shows is emulated, and what it is typed comes from the test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PROMPT = "> a message, or /help"
"""The last line of a chat that waits."""
_PROGRAM = (
    # A session of its own with the terminal as its controlling one, so that Ctrl+C becomes SIGINT there.
    "import os, sys, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class EmulatedTerminal:
    """A terminal with one program; `raw` is all that it has written."""

    def __init__(
        self,
        command: Sequence[str | bytes | Path],
        env: Mapping[str, str],
        *,
        folder: Path | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._master, slave = pty.openpty()
        self._screen = pyte.HistoryScreen(columns, rows, history=1000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, rows)
        self.raw = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *command], env=env, cwd=folder, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a user does who drags the window."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    @property
    def text(self) -> str:
        """What is on the screen, and has scrolled out of it."""
        scrolled = ["".join(line[at].data for at in range(self._screen.columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*scrolled, *self._screen.display]).rstrip()

    def wait(self, is_there: str | Callable[[str], bool], seconds: float = 30) -> str:
        """Wait until something is on the screen; returns all of it."""
        end = time.monotonic() + seconds
        while not (is_there in self.text if isinstance(is_there, str) else is_there(self.text)):
            readable, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            assert readable, f"this did not come: {is_there!r}\n{self.text}"
            self._take()
        return self.text

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def say(self, line: str) -> None:
        """Type a line at a chat's prompt, once that is there."""
        self.wait(lambda text: text.endswith((PROMPT, "\n>")) or text == ">")
        self.type(f"{line}\r")

    def finish(self) -> int:
        """Read to the end; returns the exit code."""
        with contextlib.suppress(OSError):  # the last process at this terminal has ended
            while True:
                self._take()
        os.close(self._master)
        return self.process.wait(30)

    def kill(self) -> None:
        """End the program for good, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _take(self) -> None:
        data = os.read(self._master, 65536)
        self.raw += data
        self._stream.feed(data)
