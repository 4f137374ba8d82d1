"""Starts a queen in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.adapters import instance
from rbee.errors import AlreadyRunningError, SpawnTimeoutError
from rbee.keeper import interrupt, session, start
from rbee.keeper.result import Result

if TYPE_CHECKING:
    from argparse import Namespace

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal


def run(options: Namespace, settings: Settings, terminal: Terminal) -> Result:
    """Return once a queen answers, with where it does."""

    async def command(hurry: trio.Event) -> Result:
        if (found := await session.find(settings)) is not None:
            holder = instance.find(settings.state_dir, "queen")
            if holder is not None and holder.ephemeral:
                raise AlreadyRunningError(
                    f"the queen at {found.url} runs for another command only, and ends with it",
                    hint="try again once that command has ended",
                )
            return Result(notes=(f"A queen runs already, at {found.url}.",))
        limit = settings.timeouts.start
        with trio.move_on_after(limit):
            own = start.Options(options.config, options.debug)
            ready = await start.background(settings, terminal, own, hurry)
            return Result(notes=(f"The queen answers at {ready.url} (pid {ready.pid}). `rbee down` stops it.",))
        raise SpawnTimeoutError(
            f"the queen was not ready within {limit:g} s", hint=f"its log is {settings.logs_dir / 'queen.log'}"
        )

    return interrupt.run(command)
