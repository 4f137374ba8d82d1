"""Runs a command until it ends or the user interrupts it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

import trio

from rbee.concurrency.background import open_background
from rbee.keeper.output.result import Interrupted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def run(
    command: Callable[[trio.Event], Awaitable[T]],
    *,
    ends_a_view: bool = False,
    on_interrupt: Callable[[], bool] = lambda: False,
) -> T:
    """Run `command` under trio and return its result; `ends_a_view` says that a signal is how the user ends it.

    On SIGINT `on_interrupt` is called first, which returns whether that was all the signal meant.

    The first SIGINT or SIGTERM cancels it. Its clean-up is shielded; the second one sets the event that the command was
    given, and then the clean-up should wait for nothing more. Raises Interrupted after a signal, whatever the clean-up
    raised.
    """
    received: list[int] = []

    async def main() -> T:
        force = trio.Event()
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_background() as nursery:
                with trio.CancelScope() as work:

                    async def watch() -> None:
                        async for number in signals:
                            if number == signal.SIGINT and not received and on_interrupt():
                                continue
                            if received:
                                force.set()
                            received.append(number)
                            work.cancel()

                    nursery.start_soon(watch)
                    return await command(force)
        raise Interrupted(received[0], ends_a_view=ends_a_view)

    try:
        return trio.run(main)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, ends_a_view=ends_a_view) from None
    except (Exception, BaseExceptionGroup) as exc:
        if received:
            raise Interrupted(received[0], ends_a_view=ends_a_view) from None
        # Ctrl+C before the receiver above was there: trio then raises it within the nursery.
        if isinstance(exc, BaseExceptionGroup) and exc.subgroup(KeyboardInterrupt) is not None:
            raise Interrupted(signal.SIGINT, ends_a_view=ends_a_view) from None
        raise
