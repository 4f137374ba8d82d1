"""Gives a command a queen: the one that runs, or one that lives as long as the command."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from rbee.adapters.daemon import instance, process
from rbee.errors import AlreadyRunningError, ConnectionTimeoutError, DrainingError, SpawnTimeoutError
from rbee.keeper.session import child_queen, interrupt
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.session.queen_address import configured, is_at
from rbee.keeper.session.running_queen import RunningQueen, find
from rbee.wire.common import Narration
from rbee.wire.queen import QueenHealth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen

T = TypeVar("T")

RETRY_SECONDS: Final = 0.5
"""For the queen of another keeper, which starts or ends, to do so."""
END_SECONDS: Final = 1.0
"""For a queen whose worker has gone to be seen to go too."""


def ask(
    options: Options, settings: Settings, terminal: Terminal, question: Callable[[AttachedQueen], Awaitable[T]]
) -> T:
    """Return what a queen answers, the one that runs or one that is started for it; Ctrl+C interrupts it."""

    async def command(force: trio.Event) -> T:
        async with use(settings, terminal, force, options=options) as queen:
            return await question(queen)

    return interrupt.run(command)


@asynccontextmanager
async def use(
    settings: Settings, terminal: Terminal, force: trio.Event, *, options: Options
) -> AsyncIterator[AttachedQueen]:
    """Connect to the queen that runs, and leave it running; or start one, and end it with everything it started.

    The end is waited for, also after an error or a cancellation; `force` ends running requests at once. Raises
    UnloadFailedError where the end alone failed.
    """
    queen = await _find_or_start(settings, terminal, force, options)
    if isinstance(queen, RunningQueen):
        try:
            async with attach(settings, queen, terminal) as client:
                yield client
        except ConnectionTimeoutError as exc:
            if await has_ended(settings, queen):
                raise DrainingError("the queen has ended meanwhile", hint="try again") from exc
            raise
        return
    try:
        health = QueenHealth(status="ok", version=queen.ready.version)
        own = instance.find(settings.state_dir, "queen")
        async with attach(settings, RunningQueen(queen.ready.url, health, own), terminal) as client:
            yield client
    except BaseException:
        await queen.end(settings, terminal, force)
        raise
    if (failure := await queen.end(settings, terminal, force)) is not None:
        raise failure


async def has_ended(settings: Settings, queen: RunningQueen | AttachedQueen) -> bool:
    """Return whether a queen that was used is gone, or ends just now: what it started goes before it."""
    if queen.own is None:
        return not queen.is_elsewhere and await find(settings) is None
    with trio.move_on_after(END_SECONDS):
        await process.wait_gone(queen.own.identity)
        return True
    return False


async def wait_until_gone(settings: Settings, terminal: Terminal) -> bool:
    """Wait for the end of a queen that takes no new work; returns whether it has ended within the time it has."""
    holder = instance.find(settings.state_dir, "queen")
    if holder is None or not is_at(configured(settings), holder):
        return True
    _narrate(terminal, "wait", "The queen is shutting down; starting another one once it has ended")
    with trio.move_on_after(settings.timeouts.drain + settings.timeouts.cascade):
        await process.wait_gone(holder.identity)
        return True
    return False


async def _find_or_start(
    settings: Settings, terminal: Terminal, force: trio.Event, options: Options
) -> RunningQueen | child_queen.OwnQueen:
    """Return a queen, found or started; two keepers that start one at the same time end up with the same one."""
    is_narrated = False
    with trio.move_on_after(settings.timeouts.start):
        while True:
            if (found := await find(settings)) is not None:
                return found
            if not is_narrated:
                is_narrated = True
                _narrate(terminal, "start_queen", "No queen is running; starting one for this command")
            try:
                return await child_queen.ephemeral(settings, terminal, options, force)
            except AlreadyRunningError:
                # Another keeper's queen is starting or ending: soon it answers, or it is gone.
                holder = instance.find(settings.state_dir, "queen")
                with trio.move_on_after(RETRY_SECONDS):
                    if holder is None:
                        await trio.sleep_forever()
                    await process.wait_gone(holder.identity)
    raise SpawnTimeoutError(
        f"no queen answered within {settings.timeouts.start:g} s", hint=f"its log is {settings.logs_dir / 'queen.log'}"
    )


def _narrate(terminal: Terminal, action: str, human: str) -> None:
    terminal.narrate(Narration(actor="rbee-keeper", action=action, target="queen-rbee", human=human))
