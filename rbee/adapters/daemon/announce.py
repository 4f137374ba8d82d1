"""How a starting daemon talks to its parent: JSON lines on stdout, until it is ready or has failed.

A line holds one of `narration`, `ready` or `error`. After the last one the daemon closes its stdout.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.errors import RbeeError, SpawnFailedError
from rbee.wire.common import Narration
from rbee.wire.error_body import from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

MAX_LINE = 1024 * 1024
STDERR: Final = 2


class Ready(msgspec.Struct, omit_defaults=True):
    """The daemon answers HTTP at `url`; `id` is that of its `InstanceLock`, where it has one."""

    url: str
    pid: int
    version: str
    id: str = ""


class SilentEndError(SpawnFailedError):
    """The child closed its stdout before it announced that it is ready, or why it is not."""


class Line(msgspec.Struct, omit_defaults=True):
    """One announcement; exactly one of the fields is there."""

    narration: Narration | None = None
    ready: Ready | None = None
    error: dict[str, object] | None = None


class Announcer:
    """The daemon's side; does nothing where no parent listens."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = self._open = enabled

    def tell(self, text: str) -> None:
        """Write to stderr for the person who started this daemon, or for the journal of the service that did.

        Where a program of ours did, stderr is the log, which says the same.
        """
        if not self._enabled:
            with suppress(OSError):
                os.write(STDERR, f"{text}\n".encode("utf-8", "replace"))

    def _write(self, line: Line) -> None:
        if not self._open:
            return
        try:
            sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
            sys.stdout.buffer.flush()
        except OSError:
            self._close()  # the parent has gone, and nobody else listens

    def _close(self) -> None:
        """Point stdout at nothing; a closed descriptor 1 would be given to the next file opened."""
        self._open = False
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)

    def is_abandoned(self) -> bool:
        """Return, before `ready`, whether the parent that should listen has gone."""
        if self._open:
            poller = select.poll()
            poller.register(1, 0)
            if any(found & select.POLLERR for _, found in poller.poll(0)):  # how a pipe without a reader shows, poll(2)
                self._close()
        return self._enabled and not self._open

    def report(self, narration: Narration) -> None:
        self._write(Line(narration=narration))

    def ready(self, ready: Ready) -> None:
        """Announce that HTTP is answered, and end the announcements."""
        self._write(Line(ready=ready))
        if self._open:
            self._close()

    def failed(self, error: RbeeError) -> None:
        self._write(Line(error=to_body(error)["error"]))
        if self._open:
            self._close()


def parse_line(text: bytes | str, report: Callable[[Narration], None]) -> Ready | None:
    """Parse one line of a daemon's stdout: passes narration on, raises its error, returns its readiness."""
    try:
        line = msgspec.json.decode(text, type=Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # something printed to stdout; the log has stderr
    if line.narration is not None:
        report(line.narration)
    if line.error is not None:
        raise from_body({"error": line.error}) or SpawnFailedError("the process failed to start")
    return line.ready


async def listen(process: trio.Process, report: Callable[[Narration], None]) -> Ready:
    """Follow a child's announcements until it is ready, passing its narration to `report`.

    Raises the error that the child announced, or SilentEndError when it ended (or closed its stdout) without one.
    The caller bounds the time.
    """
    assert process.stdout is not None
    pending = b""
    async with process.stdout as stdout:
        while chunk := await stdout.receive_some(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for text in lines:
                if (ready := parse_line(text, report)) is not None:
                    return ready
            if len(pending) > MAX_LINE:
                break
    raise SilentEndError("the process ended before it was ready")
