"""Stops the queen that runs in the background."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from rbee.adapters.daemon import instance, process
from rbee.adapters.logs import tail
from rbee.errors import AlreadyRunningError, UnloadFailedError
from rbee.keeper.output.result import Result
from rbee.keeper.session import child_queen, interrupt, session
from rbee.keeper.session.child_queen import MARGIN, PATIENCE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal


def run(options: Options, settings: Settings, terminal: Terminal) -> Result:
    """Return once the queen is gone, and with it its hives and their workers."""

    async def command(force: trio.Event) -> Result:
        try:
            return await end(force)
        except AlreadyRunningError:  # the queen of another command, which has just started
            return await end(force)

    async def end(force: trio.Event) -> Result:
        queen = instance.find(settings.state_dir, "queen")
        if queen is None:
            return await _without_queen(settings, terminal, options, force)
        pid = queen.identity.pid
        if queen.ephemeral:
            return Result(notes=(f"The queen (pid {pid}) runs for another command only, and ends with it.",))
        await _end("queen", queen.identity, settings, terminal)
        if undone := tail.notes(settings.logs_dir / "queen.log"):
            return Result(notes=(f"The queen (pid {pid}) has ended.", *undone))
        return Result(notes=(f"The queen (pid {pid}) has ended, with everything it started.",))

    return interrupt.run(command)


async def _end(role: str, identity: process.Identity, settings: Settings, terminal: Terminal) -> None:
    """Tell a daemon to end, and return once it has; raises UnloadFailedError."""
    limits = settings.timeouts
    process.send_signal(identity, signal.SIGTERM)
    with trio.move_on_after(PATIENCE):
        await process.wait_gone(identity)
    if process.is_running(identity):
        terminal.note("Waiting until running requests have ended.")
    limit = limits.drain + limits.cascade + MARGIN
    with trio.move_on_after(limit):
        await process.wait_gone(identity)
        if (said := tail.farewell(settings.logs_dir / f"{role}.log")) is not None:
            raise UnloadFailedError(said.message, hint=said.hint)
        return
    raise UnloadFailedError(
        f"the {role} (pid {identity.pid}) has not ended within {limit:g} s",
        hint=f"its log is {settings.logs_dir / f'{role}.log'}; `kill -KILL {identity.pid}` ends it by force",
        pid=identity.pid,
    )


async def _without_queen(settings: Settings, terminal: Terminal, options: Options, force: trio.Event) -> Result:
    """End what a queen left when it was killed: nobody else will."""
    notes = ["No queen is running."]
    hive = instance.find(settings.state_dir, "hive")
    if hive is not None and hive.started_by == "queen":
        await _end("hive", hive.identity, settings, terminal)
        pid = hive.identity.pid
        notes.append(f"The hive (pid {pid}) that an earlier queen had left has ended, with its workers.")
    if (other := await session.find(settings)) is not None:
        notes[0] = f"The queen at {other.url} has another state folder than {settings.state_dir}; it is left alone."
        if (listener := process.listener(urlsplit(other.url).port or 0)) is not None:
            notes.append(f"If that folder was deleted, `kill {listener}` ends the queen, with everything it started.")
    elif killed := _killed(settings):
        # Workers of a hive that was killed, and hives on other machines: a queen knows how to find and end them.
        queen = await child_queen.ephemeral(settings, terminal, options, force)
        if (failure := await queen.end(settings, terminal, force)) is not None:
            raise failure
        whose = " and ".join(f"the {role} (pid {found.identity.pid})" for role, found in killed.items())
        notes.append(f"What {whose} left when killed has ended.")
    return Result(notes=tuple(notes))


def _killed(settings: Settings) -> dict[str, instance.Instance]:
    """Return by role the daemons that were killed and may have left something that runs."""
    found = {role: instance.find_killed(settings.state_dir, role) for role in ("queen", "hive")}
    return {
        role: killed
        for role, killed in found.items()
        if killed is not None and not killed.ephemeral and (role == "queen" or killed.started_by == "queen")
    }
