"""The keeper's only writer to stdout and stderr.

Data goes to stdout, everything else to stderr. It writes with `os.write`, unbuffered: a buffer could fail to be
flushed while the interpreter exits.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from typing import TYPE_CHECKING, Final

from rbee.errors import StorageError
from rbee.keeper.output import narration, render
from rbee.keeper.output.status_line import StatusLine

if TYPE_CHECKING:
    from rbee.keeper.output.bars import Bars
    from rbee.wire.common import Narration
    from rbee.wire.progress import DownloadEvent, Progress, ProgressEvent, Reading

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
BAR_AFTER_SECONDS: Final = 0.15
"""Seconds before a bar is drawn; for anything shorter it would only flicker."""
CANCELLED: Final = "Cancelled."
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class OutputClosedError(Exception):
    """The reader of stdout has closed it (`| head -1`); the command ends quietly."""


def occupy_standard_descriptors() -> None:
    """Open /dev/null on each of descriptors 0 to 2 that is closed.

    Otherwise the next socket or file opened gets that number, and data meant for stdout is written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class Terminal:
    """Writes data to stdout; lines, bars and errors to stderr.

    While generated text is being written to the terminal that stderr is too, lines are held back until the text has
    ended, so that neither interrupts the other. `quiet` suppresses everything but data and errors. What daemons
    narrate replaces each other in one line of a terminal; with `verbose` each is a line that stays, with its actor.
    """

    def __init__(self) -> None:
        self.quiet = False
        self.verbose = False
        self._draws = os.isatty(STDERR) and os.environ.get("TERM", "dumb") not in ("", "dumb")
        self._colours = self._draws and not os.environ.get("NO_COLOR")
        self._shared = _same_file(STDOUT, STDERR)
        self._status = StatusLine(colours=self._colours)
        self._bars: Bars | None = None
        self._progress_since: float | None = None
        self._in_text = False
        self._at_line_start = False
        self._held: list[str] = []

    @property
    def is_shown(self) -> bool:
        """Whether stdout is a terminal: there text is made safe, elsewhere it is written exactly as it is."""
        return os.isatty(STDOUT)

    @property
    def draws_text(self) -> bool:
        """Whether text may be drawn on stdout: it is a terminal that can, of a user who has nothing against it."""
        return self.is_shown and self._colours and _speaks_utf8()

    @property
    def room(self) -> int | None:
        """The columns of the terminal that stdout is; None elsewhere, where lines may be as long as they are."""
        if not self.is_shown:
            return None
        try:
            return os.get_terminal_size(STDOUT).columns or None  # a terminal may not know, and say 0
        except OSError:
            return None

    def narrate(self, event: Narration) -> None:
        """Show what a daemon or the keeper is doing."""
        if self.verbose:
            self._line(render.narration(event, emoji=self._draws and _speaks_utf8()))
        elif self._draws and narration.is_passing(event):
            self._show_status(render.clean(event.human))
        elif narration.is_logged(event):
            self._line(render.clean(event.human))

    def note(self, text: str) -> None:
        """Write a line that is neither data nor an error."""
        self._line(render.clean(text, lines=True))

    def report(self, message: ProgressEvent) -> None:
        """Show an event of a daemon: a sentence, progress, or a retry."""
        from rbee.wire.common import Narration
        from rbee.wire.progress import Retrying

        match message:
            case Narration():
                self.narrate(message)
            case Retrying():
                delay = f" in {message.delay_ms} ms" if message.delay_ms else ""
                self.note(f"{message.message}; attempt {message.attempt}/{message.attempts}{delay}")
            case _:
                self.progress(message)

    def progress(self, progress: Progress | Reading | DownloadEvent) -> None:
        """Draw a progress bar, if stderr is a terminal."""
        if self.quiet or not self._draws or self._in_text:
            return
        now = time.monotonic()
        if self._progress_since is None:
            self._progress_since = now
        if now - self._progress_since < BAR_AFTER_SECONDS:
            return
        self._status.hide()
        if self._bars is None:
            from rbee.keeper.output.bars import Bars

            self._bars = Bars(colours=self._colours)
        self._bars.show(progress)

    def end_progress(self) -> None:
        self._progress_since = None
        if self._bars is not None:
            self._bars.hide()

    def settle(self) -> None:
        """Remove what is shown only while something goes on: the bar and the line that is replaced."""
        self.end_progress()
        self._status.clear()

    def error(self, message: str, hint: str | None) -> None:
        """Write a failure, even with `--quiet`."""
        self.settle()
        self._write_line(render.error(message, hint))

    async def confirm(self, question: str) -> bool:
        """Ask the user a yes-or-no question; without a terminal or with `--quiet` the answer is no."""
        import trio

        if self.quiet or not (os.isatty(STDIN) and os.isatty(STDERR)):
            return False
        self.settle()
        os.write(STDERR, render.clean(question, lines=True).encode("utf-8", "replace"))
        await trio.lowlevel.wait_readable(STDIN)
        return os.read(STDIN, 1024).strip().lower() in (b"y", b"yes")

    def prompt(self, text: str) -> None:
        """Write what belongs to a conversation with the user, even with `--quiet`, and no newline behind it."""
        self.settle()
        with contextlib.suppress(OSError):
            os.write(STDERR, render.clean(text, lines=True).encode("utf-8", "replace"))

    def cancelled(self, word: str | None = CANCELLED) -> None:
        """Confirm that Ctrl+C has taken effect; without a word leave a fresh line only."""
        is_erased = self._status.is_shown
        self.settle()
        # The terminal has echoed ^C on the current line.
        fresh = is_erased or self._at_line_start or not self._draws
        if word is not None:
            self._write_line(word if fresh else f"\n{word}")
        elif not fresh:
            self._write_line("")

    def debug(self, text: str) -> None:
        self.settle()
        self._write_line(text.rstrip("\n"))

    def data(self, text: str) -> None:
        """Write a whole result to stdout, with the newline at its end."""
        self.settle()
        if self.is_shown:
            text = render.clean_generated(text)
        view = memoryview(text.encode("utf-8", "surrogateescape") + b"\n")
        while view:
            try:
                view = view[write_stdout(view) :]
            except BlockingIOError:
                # Another process that shares the descriptor has made it non-blocking.
                select.select([], [STDOUT], [])

    def begin_text(self) -> None:
        """Announce that generated text follows on stdout."""
        self.settle()
        self._in_text = True

    def end_text(self) -> None:
        """Announce that the generated text has ended; write the lines that were held back."""
        self._in_text = False
        self._at_line_start = True
        held, self._held = self._held, []
        for line in held:
            self._line(line)

    @property
    def needs_fresh_line(self) -> bool:
        """Whether interrupted text needs a newline before anything else is written."""
        return self._shared or self.is_shown

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        if self._in_text and self._shared:
            self._held.append(text)
            return
        if self._bars is not None:
            self._bars.hide()  # the next event draws it again, below this line
        self._status.hide()
        # Not rich: it takes 60 ms to import, and two escape sequences do.
        self._write_line(f"{_DIM}{text}{_PLAIN}" if self._colours else text)
        self._status.redraw()

    def _show_status(self, text: str) -> None:
        if self.quiet or (self._in_text and self._shared):
            return
        if self._bars is not None:
            self._bars.hide()
        self._status.show(text)

    @staticmethod
    def _write_line(text: str) -> None:
        # If stderr is gone, there is nowhere to report it.
        with contextlib.suppress(OSError):
            os.write(STDERR, text.encode("utf-8", "replace") + b"\n")


def write_stdout(data: bytes | memoryview) -> int:
    """Write to stdout; returns how many bytes were written.

    Raises OutputClosedError, BlockingIOError, or StorageError.
    """
    try:
        return os.write(STDOUT, data)
    except BlockingIOError:
        raise
    except BrokenPipeError as exc:
        raise OutputClosedError from exc
    except OSError as exc:
        raise StorageError(f"standard output cannot be written: {exc.strerror}") from exc


def is_waitable(descriptor: int) -> bool:
    """Whether one can wait until the descriptor accepts data; a regular file always does."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def _speaks_utf8() -> bool:
    import sys

    return (getattr(sys.stderr, "encoding", None) or "").lower().replace("-", "") == "utf8"
