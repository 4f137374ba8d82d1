"""Writes to stdout and stderr, and to nothing else does the keeper write.

stdout is data; everything else goes to stderr. Written with `os.write`: unbuffered, and so that nothing is left in a
buffer that fails while the interpreter ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from typing import TYPE_CHECKING, Final

from rbee.errors import StorageError
from rbee.keeper.output import render

if TYPE_CHECKING:
    from rbee.keeper.output.bars import Bars
    from rbee.wire.common import Narration
    from rbee.wire.download import DownloadEvent
    from rbee.wire.progress import Progress, ProgressEvent

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
BAR_AFTER: Final = 0.15
"""Seconds that something must take before a bar is drawn; what is done sooner would only flicker."""
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class OutputClosedError(Exception):
    """Whoever reads stdout has had enough (`| head -1`); the command ends quietly."""


def occupy_standard_descriptors() -> None:
    """Open /dev/null on each of descriptors 0 to 2 that is closed.

    Otherwise the next socket or file opened gets that number, and what is meant for stdout is written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class Terminal:
    """The user's side: data on stdout, and lines, bars and errors on stderr.

    While generated text is on its way to the same terminal as stderr, lines are held back until the text has ended, so
    that neither breaks into the other. `quiet` silences all but errors.
    """

    def __init__(self) -> None:
        self.quiet = False
        self._draws = os.isatty(STDERR) and os.environ.get("TERM", "dumb") not in ("", "dumb")
        self._colours = self._draws and not os.environ.get("NO_COLOR")
        self._shared = _same_file(STDOUT, STDERR)
        self._bars: Bars | None = None
        self._progress_since: float | None = None
        self._in_text = False
        self._at_line_start = False
        self._held: list[str] = []

    @property
    def is_shown(self) -> bool:
        """Whether stdout is a screen: text is made safe for it, and kept exactly as it is elsewhere."""
        return os.isatty(STDOUT)

    def narrate(self, event: Narration) -> None:
        """Tell what happens."""
        self._line(render.narration(event, emoji=self._draws and _speaks_utf8()))

    def note(self, text: str) -> None:
        """Say something that is neither data nor an error."""
        self._line(render.clean(text, lines=True))

    def report(self, message: ProgressEvent) -> None:
        """Show what a daemon tells: a sentence, how far something is, or that it is tried again."""
        from rbee.wire.common import Narration
        from rbee.wire.download import Retrying

        match message:
            case Narration():
                self.narrate(message)
            case Retrying():
                delay = f" in {message.delay_ms} ms" if message.delay_ms else ""
                self.note(f"{message.message}; attempt {message.attempt}/{message.attempts}{delay}")
            case _:
                self.progress(message)

    def progress(self, progress: Progress | DownloadEvent) -> None:
        """Draw how far something is, where there is a terminal to draw on."""
        if self.quiet or not self._draws or self._in_text:
            return
        now = time.monotonic()
        if self._progress_since is None:
            self._progress_since = now
        if now - self._progress_since < BAR_AFTER:
            return
        if self._bars is None:
            from rbee.keeper.output.bars import Bars

            self._bars = Bars(colours=self._colours)
        self._bars.show(progress)

    def end_progress(self) -> None:
        """Take the bar away."""
        self._progress_since = None
        if self._bars is not None:
            self._bars.hide()

    def error(self, message: str, hint: str | None) -> None:
        """Tell a failure; not even `--quiet` silences it."""
        self.end_progress()
        self._write_line(render.error(message, hint))

    async def confirm(self, question: str) -> bool:
        """Ask the user; without a terminal to ask on, or with `--quiet`, the answer is no."""
        import trio

        if self.quiet or not (os.isatty(STDIN) and os.isatty(STDERR)):
            return False
        self.end_progress()
        os.write(STDERR, render.clean(question, lines=True).encode("utf-8", "replace"))
        await trio.lowlevel.wait_readable(STDIN)
        return os.read(STDIN, 1024).strip().lower() in (b"y", b"yes")

    def cancelled(self) -> None:
        """Confirm that the user's Ctrl+C has taken effect."""
        self.end_progress()
        # The terminal has echoed ^C on the current line.
        self._write_line("\nCancelled." if self._draws and not self._at_line_start else "Cancelled.")

    def debug(self, text: str) -> None:
        """Write a traceback."""
        self._write_line(text.rstrip("\n"))

    def data(self, text: str) -> None:
        """Write a whole result to stdout, with the newline at its end."""
        self.end_progress()
        if self.is_shown:
            text = render.clean_generated(text)
        view = memoryview(text.encode("utf-8", "surrogateescape") + b"\n")
        while view:
            try:
                view = view[write_stdout(view) :]
            except BlockingIOError:
                # Whoever shares the descriptor has made it non-blocking.
                select.select([], [STDOUT], [])

    def begin_text(self) -> None:
        """Generated text follows on stdout."""
        self.end_progress()
        self._in_text = True

    def end_text(self) -> None:
        """The generated text has ended, with a newline where that is needed; tell what was held back."""
        self._in_text = False
        self._at_line_start = True
        held, self._held = self._held, []
        for line in held:
            self._line(line)

    @property
    def needs_fresh_line(self) -> bool:
        """Whether text that broke off must be followed by a newline before anything else is written."""
        return self._shared or self.is_shown

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        if self._in_text and self._shared:
            self._held.append(text)
            return
        if self._bars is not None:
            self._bars.hide()  # the next event draws it again, below this line
        # Not rich: it takes 60 ms to import, and two escapes are all that is needed here.
        self._write_line(f"{_DIM}{text}{_PLAIN}" if self._colours else text)

    @staticmethod
    def _write_line(text: str) -> None:
        # Nobody can be told that stderr is gone.
        with contextlib.suppress(OSError):
            os.write(STDERR, text.encode("utf-8", "replace") + b"\n")


def write_stdout(data: bytes | memoryview) -> int:
    """Write to stdout, and return how much of it was taken.

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
    """Whether the system can tell when the descriptor takes data; a regular file always does."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def _speaks_utf8() -> bool:
    import sys

    return (getattr(sys.stderr, "encoding", None) or "").lower().replace("-", "") == "utf8"
