"""Reports on stderr how far a long step has come, or why it failed."""

import signal
import sys
import time
from collections.abc import Callable
from typing import Self

ESTIMATE_SECONDS = 10.0
"""What a step must take, and have left, to be estimated."""


class StepFailed(Exception):
    """A set-up step failed; the message is for the user, with an optional hint on what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def report(self) -> None:
        """Writes the error as rbee itself does: what happened, then what to do."""
        print(f"rbee: {self}", file=sys.stderr)
        if self.hint:
            print(f"hint: {self.hint}", file=sys.stderr)


def exit_code(work: Callable[[], object]) -> int:
    """Does the work; if it fails, writes the reason instead of a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl+C does: half an engine is hundreds of megabytes, which nobody would remove.
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    try:
        work()
    except StepFailed as failure:
        failure.report()
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        StepFailed(f"setting up failed: {error.strerror or error}{where}").report()
        return 1
    except KeyboardInterrupt:
        print("\nrbee: stopped; nothing half-done is kept", file=sys.stderr)
        return 130
    return 0


class Progress:
    """Counts the steps of one job: in one changing line on a terminal, in a few plain lines elsewhere.

    Use it as a context manager: leaving it ends the changing line.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._moving = sys.stderr.isatty()
        self._tenths = -1
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._write(f"{self.label} …")
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._moving:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def step(self, done: int, total: int) -> None:
        """Reports that step `done` of `total` has been reached; without a terminal only every tenth of them."""
        tenths = 10 * done // max(total, 1)
        if self._moving or tenths > self._tenths:
            self._write(f"{self.label}: step {done} of {total}{self._left(done, total)}")
        self._tenths = tenths

    def _left(self, done: int, total: int) -> str:
        """How long the rest takes at the pace so far, where that is worth a word."""
        elapsed = time.monotonic() - self._began
        left = elapsed * (total - done) / max(done, 1)
        if elapsed < ESTIMATE_SECONDS or left < ESTIMATE_SECONDS:
            return ""
        return f", about {round(left / 60)} min left" if left >= 90 else f", about {round(left, -1):.0f} s left"

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}" if self._moving else f"{line}\n")
        sys.stderr.flush()
