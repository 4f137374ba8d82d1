"""Runs a daemon from its first line to its exit code: signals, the parent's pipe, errors, a last resort."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.daemon import descriptors, exit_report
from rbee.concurrency.contained import expected, keep_running
from rbee.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rbee.adapters.daemon.announce import Announcer

log = logging.getLogger(__name__)

STDERR: Final = 2
LAST_RESORT_SECONDS: Final = 5.0
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks a daemon to end: the last comes when the terminal is closed that it was started in."""


class Stopping:
    """Whether a daemon should end, and whether it should still wait for running requests.

    `asked` is set by the first of SIGNALS, by the parent's pipe closing, or by `ask()`; `forced` by the second
    signal or close, which ends the wait for running requests.
    """

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.forced = trio.Event()

    def ask(self) -> None:
        """Request the shutdown; idempotent."""
        self.asked.set()

    def on_signal(self) -> None:
        """A signal has come, or the parent has gone: the first requests the shutdown, the second forces it."""
        if self.asked.is_set():
            self.forced.set()
        else:
            self.asked.set()


def _handled_signals() -> list[signal.Signals]:
    """Return the signals to handle: not SIGHUP where it is ignored, as `nohup` has it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignored]


def _hold_signals(handled: Sequence[int]) -> list[int]:
    """Note each signal while nobody receives them, in the list returned: before trio does, and in the last moments.

    trio puts back the handlers that were there before. The system's own would end a daemon that is ending already, with
    another exit code, and before it has reported how it ended.
    """
    held: list[int] = []
    for number in handled:
        signal.signal(number, lambda received, _: held.append(received))
    return held


async def _watch_signals(
    stopping: Stopping, handled: Sequence[int], held: list[int], task_status: trio.TaskStatus[None]
) -> None:
    with trio.open_signal_receiver(*handled) as received:
        task_status.started()
        for number in held:
            log.info("got %s", signal.Signals(number).name)
            stopping.on_signal()

        async def pass_on() -> None:
            async for number in received:
                log.info("got %s", signal.Signals(number).name)
                stopping.on_signal()

        await keep_running("watching for signals", pass_on)


async def _watch_parent(stopping: Stopping) -> None:
    """Wait until the pipe on stdin closes, which it does however the parent ends."""
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 4096):
            log.info("the parent has gone")
            stopping.on_signal()
            return


def run(daemon: Callable[[Stopping], Awaitable[None]], announcer: Announcer, *, ephemeral: bool = False) -> int:
    """Run `daemon` and return the exit code. With `ephemeral`, stdin is the parent's pipe.

    An error of the catalogue is announced to the parent, written to stderr and the log, and gives exit code 1. A fault
    in native code leaves on stderr what Python was doing.
    """
    faulthandler.enable(STDERR, all_threads=False)
    descriptors.raise_limit()
    handled = _handled_signals()
    held = _hold_signals(handled)

    async def main() -> None:
        stopping = Stopping()
        async with trio.open_nursery() as nursery:
            await nursery.start(_watch_signals, stopping, handled, held)
            if ephemeral:
                nursery.start_soon(keep_running, "watching the parent", partial(_watch_parent, stopping))
            await daemon(stopping)
            nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        error = expected(group)
        if error is None:
            log.exception("the daemon failed")
            error = InternalError(exit_report.BUG)
        elif log.hasHandlers():  # else logging would write it to stderr, beside the line below
            log.error("%s: %s", error.code, error.message)  # noqa: TRY400 (expected: needs no traceback)
        announcer.failed(error)
        text = f"rbee: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else "")
        with suppress(OSError):  # to the log on a full disk; sys.stderr would keep it, and fail again at the exit
            os.write(STDERR, text.encode("utf-8", "replace"))
        return error.exit_code
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the interpreter takes other handlers away while it ends
        _exit_anyway()
    return 0


def note(text: str) -> None:
    """Write to stderr, which may be the log, for a person to read."""
    with suppress(OSError):
        os.write(STDERR, f"note: {text}\n".encode("utf-8", "replace"))


def _exit_anyway() -> None:
    """End the process in a few seconds even if a thread still hangs in native code."""
    timer = threading.Timer(LAST_RESORT_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()
