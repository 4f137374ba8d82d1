"""Passes on what a piece of work reports while it runs."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from rbee.concurrency.outcome import Outcome
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

R = TypeVar("R")
T = TypeVar("T")


async def with_reports(emit: Callable[[R], Awaitable[None]], work: Callable[[Callable[[R], None]], Awaitable[T]]) -> T:
    """Run `work` and await `emit` for each of its reports, in order; returns its result once all of them are out.

    Reporting never waits. Reports are dropped where `emit` raises BrokenResourceError, since nobody takes them then,
    and where they come after the end of `work`, which may go on for other callers.
    """
    send, receive = trio.open_memory_channel[R](math.inf)
    outcome: Outcome[T] = Outcome()

    async def pass_on() -> None:
        with suppress(trio.BrokenResourceError), receive:
            async for message in receive:
                await emit(message)

    def report(message: R) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            send.send_nowait(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on)
        with send:
            try:
                outcome.settle(await work(report))
            except RbeeError as exc:
                outcome.settle(exc)  # raised below: a nursery would wrap it in a group
    return await outcome.wait()
