"""`rbee down`: stops the queen that runs in the background."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import trio

from rbee.adapters.daemon import instance, process
from rbee.adapters.http.own_address import is_of_this_machine
from rbee.errors import AlreadyRunningError, ConnectionTimeoutError, InvalidRequestError, UnloadFailedError
from rbee.keeper.output.result import Result
from rbee.keeper.session import child_queen, interrupt, running_queen
from rbee.keeper.session.child_queen import EXPLAIN_AFTER_SECONDS, STUCK_AFTER_SECONDS
from rbee.keeper.session.queen_address import configured

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.exit_report import ExitReport
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.queen_address import QueenAddress


class _Keeper(NamedTuple):
    """What ending a daemon needs of this command."""

    options: Options
    settings: Settings
    terminal: Terminal
    force: trio.Event


def run(options: Options, settings: Settings, terminal: Terminal) -> Result:
    """Return once the queen is gone, and with it its hives and their workers."""

    async def command(force: trio.Event) -> Result:
        keeper = _Keeper(options, settings, terminal, force)
        address = configured(settings)
        if address.is_named:
            await _refuse_another(keeper, address)
        try:
            return await _end_queen(keeper)
        except AlreadyRunningError:  # the queen of another command, which has just started
            return await _end_queen(keeper)

    return interrupt.run(command)


async def _refuse_another(keeper: _Keeper, address: QueenAddress) -> None:
    """Raise unless the queen that is named is our own: we end nothing that belongs to another machine or user."""
    found = await running_queen.find(keeper.settings)
    if found is not None and found.own is not None:
        return
    holder = instance.find(keeper.settings.state_dir, "queen")
    ours = ""
    if holder is not None:
        ours = f"; the queen of this machine, at {holder.url}, ends without --queen, RBEE_QUEEN_URL and `url`"
    raise InvalidRequestError(
        f"the queen at {address.url} is not one of this user on this machine, and is left alone",
        hint=f"`rbee down` ends it on the machine and for the user that started it{ours}",
        field="queen",
        rule="a queen of this state folder",
    )


async def _end_queen(keeper: _Keeper) -> Result:
    queen = instance.find(keeper.settings.state_dir, "queen")
    if queen is None:
        return await _end_what_is_left(keeper, "No queen is running.")
    pid = queen.identity.pid
    if queen.ephemeral:
        return Result(notes=(f"The queen (pid {pid}) runs for another command only, and ends with it.",))
    report = await _end(keeper, "queen", queen.identity)
    if report is None and instance.find(keeper.settings.state_dir, "queen") is None:
        return await _end_what_is_left(keeper, f"The queen (pid {pid}) was killed before it had ended.")
    if report is not None and report.unfinished:
        return Result(notes=(f"The queen (pid {pid}) has ended.", *report.unfinished))
    return Result(notes=(f"The queen (pid {pid}) has ended, with everything it started.",))


async def _end(keeper: _Keeper, role: str, identity: process.Identity) -> ExitReport | None:
    """Tell a daemon to end, and return how it did, None if it was killed; raises UnloadFailedError."""
    limits, log = keeper.settings.timeouts, keeper.settings.logs_dir / f"{role}.log"
    process.send_signal(identity, signal.SIGTERM)
    with trio.move_on_after(EXPLAIN_AFTER_SECONDS):
        await process.wait_gone(identity)
    if process.is_running(identity):
        keeper.terminal.note("Waiting until running requests have ended.")
    limit = limits.drain + limits.cascade + STUCK_AFTER_SECONDS
    with trio.move_on_after(limit):
        await process.wait_gone(identity)
        report = instance.exit_report_of(keeper.settings.state_dir, role, identity)
        if report is not None and report.failure is not None:
            raise report.failure
        return report
    raise UnloadFailedError(
        f"the {role} (pid {identity.pid}) has not ended within {limit:g} s",
        hint=f"its log is {log}; `kill -KILL {identity.pid}` ends it by force",
        pid=identity.pid,
    )


async def _end_what_is_left(keeper: _Keeper, reason: str) -> Result:
    """End what a queen left when it was killed: nobody else will. `reason` says where that queen is."""
    settings, notes = keeper.settings, [reason]
    hive = instance.find(settings.state_dir, "hive")
    if hive is not None and hive.started_by == "queen" and await _end(keeper, "hive", hive.identity) is not None:
        pid = hive.identity.pid
        notes.append(f"The hive (pid {pid}) that an earlier queen had left has ended, with its workers.")
    if (other := await _another(settings)) is not None:
        notes[0] = f"The queen at {other.url} has another state folder than {settings.state_dir}; it is left alone."
        if (listener := await _listener(other)) is not None:
            notes.append(f"If that folder was deleted, `kill {listener}` ends the queen, with everything it started.")
    elif unclean := _uncleanly_ended(settings):
        # Workers of a hive that was killed, and hives on other machines: a queen knows how to find and end them.
        queen = await child_queen.ephemeral(settings, keeper.terminal, keeper.options, keeper.force)
        if (failure := await queen.end(settings, keeper.terminal, keeper.force)) is not None:
            raise failure
        whose = " and ".join(f"the {role} (pid {found.identity.pid})" for role, found in unclean.items())
        was_killed = all(found.report is None for found in unclean.values())
        notes.append(f"What {whose} left{' when killed' if was_killed else ''} has ended.")
    return Result(notes=tuple(notes))


async def _another(settings: Settings) -> running_queen.RunningQueen | None:
    """Return a queen that is not of our state folder; none answers, perhaps, at the address of another machine."""
    try:
        return await running_queen.find(settings)
    except ConnectionTimeoutError:
        return None


async def _listener(queen: running_queen.RunningQueen) -> int | None:
    """Return the pid of a queen of this machine; None for one elsewhere, which a tunnel may lead to."""
    found = urlsplit(queen.url)
    if not await is_of_this_machine(found.hostname or ""):
        return None
    pid = process.listener(found.hostname or "", found.port or 80)
    if pid is None or not any(word == "queen" or word.endswith("/queen-rbee") for word in process.words(pid)):
        return None
    return pid


def _uncleanly_ended(settings: Settings) -> dict[str, instance.Instance]:
    """Return by role the daemons that were killed, or failed, and may have left something that runs."""
    found = {role: instance.find_uncleanly_ended(settings.state_dir, role) for role in ("queen", "hive")}
    return {
        role: ended
        for role, ended in found.items()
        if ended is not None and not ended.ephemeral and (role == "queen" or ended.started_by == "queen")
    }
