"""Notices that a process of this machine which one waits for is stopped, as by SIGSTOP or Ctrl+Z, and says so."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.daemon import process
from rbee.concurrency.background import open_background
from rbee.errors import ConnectionTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE: Final = 5.0
"""Seconds that a stopped process has to go on: a debugger or a snapshot may stop one for a moment."""
LOOK: Final = 1.0
"""Seconds between two looks; some blocks last as long as the daemon."""


@asynccontextmanager
async def unless_stopped(role: str, identity: process.Identity | None) -> AsyncIterator[None]:
    """Run the block, which waits for that process; give it up once the process was stopped for PATIENCE seconds.

    Raises ConnectionTimeoutError then. The kernel accepts connections in the name of a stopped process, so the block
    would wait for its longest limit, and could then say no more than that nothing came. Without an identity (a daemon
    of another machine) this does nothing.
    """
    if identity is None:
        yield
        return
    async with open_background() as nursery:
        with trio.CancelScope() as block:

            async def watch() -> None:
                await _stopped_for_good(identity)
                block.cancel()

            nursery.start_soon(watch)
            yield
    if block.cancelled_caught:
        raise explain(role, identity)


async def wait_to_go_on(role: str, identity: process.Identity) -> None:
    """Return at once, or once the process goes on that is stopped; raises ConnectionTimeoutError when it does not."""
    with trio.move_on_after(PATIENCE):
        while process.is_stopped(identity):  # noqa: ASYNC110 (another process's state)
            await trio.sleep(LOOK)
        return
    raise explain(role, identity)


async def _stopped_for_good(identity: process.Identity) -> None:
    """Return once the process was stopped for PATIENCE seconds at every look."""
    while True:
        with trio.move_on_after(PATIENCE) as patience:
            while process.is_stopped(identity):  # noqa: ASYNC110 (another process's state)
                await trio.sleep(LOOK)
        if patience.cancelled_caught:
            return
        await trio.sleep(LOOK)


def explain(role: str, identity: process.Identity) -> ConnectionTimeoutError:
    """Return the error for a daemon that is stopped."""
    pid = identity.pid
    return ConnectionTimeoutError(
        f"the {role} (pid {pid}) is stopped, as by SIGSTOP or Ctrl+Z, and answers nobody",
        hint=f"`kill -CONT {pid}` lets it go on",
        pid=pid,
    )
