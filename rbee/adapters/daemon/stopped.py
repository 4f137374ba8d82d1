"""Detects that a local process we wait for was stopped (SIGSTOP, Ctrl+Z)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.daemon import process
from rbee.concurrency.background import open_background
from rbee.errors import ConnectionTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GRACE_SECONDS: Final = 5.0
"""For a stopped process to go on: a debugger or a snapshot may stop one for a moment."""
CHECK_SECONDS: Final = 1.0
"""Between two checks; some blocks last as long as the daemon."""


@asynccontextmanager
async def fail_if_sigstopped(role: str, identity: process.Identity | None) -> AsyncIterator[Callable[[], None]]:
    """Run the block, which waits for that process; cancel it once the process was stopped for GRACE_SECONDS.

    Raises ConnectionTimeoutError then. Gives what to call once the block waits for the process no more.

    The kernel accepts connections in the name of a stopped process, so the block would wait for its longest limit, and
    could then say no more than that nothing came. Without an identity (a daemon of another machine) this does nothing.
    """
    watching = trio.CancelScope()
    if identity is None:
        yield watching.cancel
        return
    async with open_background() as nursery:
        with trio.CancelScope() as block:

            async def watch() -> None:
                with watching:
                    await _stopped_for_good(identity)
                    block.cancel()

            nursery.start_soon(watch)
            yield watching.cancel
    if block.cancelled_caught:
        raise explain(role, identity)


async def wait_to_go_on(role: str, identity: process.Identity) -> None:
    """Return once the process runs, at once where it does; raises ConnectionTimeoutError when it stays stopped."""
    with trio.move_on_after(GRACE_SECONDS):
        while process.is_stopped(identity):  # noqa: ASYNC110 (another process's state)
            await trio.sleep(CHECK_SECONDS)
        return
    raise explain(role, identity)


async def _stopped_for_good(identity: process.Identity) -> None:
    """Return once the process was stopped for GRACE_SECONDS at every check."""
    while True:
        with trio.move_on_after(GRACE_SECONDS) as patience:
            while process.is_stopped(identity):  # noqa: ASYNC110 (another process's state)
                await trio.sleep(CHECK_SECONDS)
        if patience.cancelled_caught:
            return
        await trio.sleep(CHECK_SECONDS)


def explain(role: str, identity: process.Identity) -> ConnectionTimeoutError:
    """Return the error for a daemon that is stopped."""
    pid = identity.pid
    return ConnectionTimeoutError(
        f"the {role} (pid {pid}) is stopped, as by SIGSTOP or Ctrl+Z, and answers nobody",
        hint=f"`kill -CONT {pid}` lets it go on",
        pid=pid,
    )
