"""Tells on stderr how a long step goes: how far it has come, or why it cannot be finished."""

import sys
from collections.abc import Callable
from typing import Self


class StepFailed(Exception):
    """A set-up step that cannot go on; the message is for the user, with an optional hint on what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def tell(self) -> None:
        """Writes the error the way rbee itself does: what happened, then what to do."""
        print(f"rbee: {self}", file=sys.stderr)
        if self.hint:
            print(f"hint: {self.hint}", file=sys.stderr)


def exit_code(work: Callable[[], object]) -> int:
    """Does the work; where it cannot be finished, tells the user why in place of a traceback."""
    try:
        work()
    except StepFailed as failure:
        failure.tell()
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        StepFailed(f"setting up failed: {error.strerror or error}{where}").tell()
        return 1
    except KeyboardInterrupt:
        print("\nrbee: stopped; nothing half-done is kept", file=sys.stderr)
        return 130
    return 0


class Progress:
    """Counts the steps of one job: in one moving line on a terminal, in a few plain ones elsewhere.

    Use as a context manager: leaving it ends the moving line.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._moving = sys.stderr.isatty()
        self._tenths = -1

    def __enter__(self) -> Self:
        self._write(f"{self.label} …")
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._moving:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def step(self, done: int, total: int) -> None:
        """Says that step `done` of `total` has been reached; off a terminal only every tenth is written."""
        tenths = 10 * done // max(total, 1)
        if self._moving or tenths > self._tenths:
            self._write(f"{self.label}: step {done} of {total}")
        self._tenths = tenths

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}" if self._moving else f"{line}\n")
        sys.stderr.flush()
