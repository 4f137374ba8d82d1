"""Stops the queen that runs in the background."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

from rbee.adapters import instance, process
from rbee.errors import UnloadFailedError
from rbee.keeper import interrupt, session
from rbee.keeper.result import Result
from rbee.keeper.start import MARGIN, PATIENCE

if TYPE_CHECKING:
    from argparse import Namespace

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal


def run(_options: Namespace, settings: Settings, terminal: Terminal) -> Result:
    """Return once the queen is gone, and with it its hives and their workers."""

    async def command(_hurry: trio.Event) -> Result:
        queen = instance.find(settings.state_dir, "queen")
        if queen is None:
            return await _nothing_to_stop(settings)
        pid = queen.identity.pid
        if queen.ephemeral:
            return Result(notes=(f"The queen (pid {pid}) runs for another command only, and ends with it.",))
        limits = settings.timeouts
        process.send_signal(queen.identity, signal.SIGTERM)
        with trio.move_on_after(PATIENCE):
            await process.wait_gone(queen.identity)
        if process.is_running(queen.identity):
            terminal.note("Waiting until running requests have ended.")
        limit = limits.drain + limits.cascade + MARGIN
        with trio.move_on_after(limit):
            await process.wait_gone(queen.identity)
            return Result(notes=(f"The queen (pid {pid}) has ended, with everything it started.",))
        raise UnloadFailedError(
            f"the queen (pid {pid}) has not ended within {limit:g} s",
            hint=f"its log is {settings.logs_dir / 'queen.log'}; `kill -KILL {pid}` ends it by force",
            pid=pid,
        )

    return interrupt.run(command)


async def _nothing_to_stop(settings: Settings) -> Result:
    notes = ["No queen is running."]
    if (other := await session.find(settings)) is not None:
        notes = [f"The queen at {other.url} has another state folder than {settings.state_dir}; it is left alone."]
    return Result(notes=tuple(notes))
