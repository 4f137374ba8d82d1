"""Runs a command until it ends or the user interrupts it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

import trio

from rbee.keeper.output.result import Interrupted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def run(command: Callable[[trio.Event], Awaitable[T]]) -> T:
    """Run `command` under trio and return what it returns.

    The first SIGINT or SIGTERM cancels it. Its clean-up is shielded, and should end at once when the second one sets
    the event that the command was given. Raises Interrupted after a signal, whatever the clean-up raised.
    """
    received: list[int] = []

    async def main() -> T:
        hurry = trio.Event()
        result: list[T] = []
        failure: Exception | None = None
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                work = trio.CancelScope()

                async def watch() -> None:
                    async for number in signals:
                        if received:
                            hurry.set()
                        received.append(number)
                        work.cancel()

                nursery.start_soon(watch)
                with work:
                    try:
                        result.append(await command(hurry))
                    except Exception as exc:  # noqa: BLE001 (raised below: the nursery would wrap it in a group)
                        failure = exc
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not result:
            raise Interrupted(received[0])
        return result[0]

    try:
        return trio.run(main)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT) from None
    except BaseExceptionGroup as group:
        # Ctrl+C before the receiver above was there: trio then raises it within the nursery.
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise Interrupted(signal.SIGINT) from None
    except Exception:
        if received:
            raise Interrupted(received[0]) from None
        raise
