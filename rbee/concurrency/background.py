"""Runs tasks beside a block of code, for as long as the block lasts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled at the end of the block.

    An error of the block is raised as it is: a plain nursery would wrap it in an exception group, which no `except`
    for that error catches. What a task in the background raises comes as a group, as usual.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as exc:  # noqa: BLE001 (raised below)
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def cancel_when(event: trio.Event) -> AsyncIterator[trio.CancelScope]:
    """Cancel the block once `event` is set; gives the scope that is cancelled then."""
    async with open_background() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(call_when, event, scope.cancel)
            yield scope


async def call_when(event: trio.Event, action: Callable[[], object]) -> None:
    """Call `action` once `event` is set."""
    await event.wait()
    action()
