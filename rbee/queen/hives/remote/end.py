"""Ends the hive of a node that a queen started: asks it by HTTP, and where that fails, signals it over SSH."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from rbee.concurrency.background import cancel_when
from rbee.errors import ConnectionTimeoutError, RbeeError
from rbee.queen.hives.link import LeftRunningError
from rbee.queen.hives.remote import launch, script

if TYPE_CHECKING:
    from rbee.adapters.ssh.connection import SshConnection
    from rbee.queen.hives.remote.reach import Reach
    from rbee.wire.registry import BeehiveRow

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
KILL_MARGIN_SECONDS: Final = 2.0
"""Before our own patience ends, so that we hear of it."""


async def end(reach: Reach, force: trio.Event) -> LeftRunningError | None:
    """End the hive if a queen started it, within the limits of draining and of the cascade.

    `force` ends the wait for its requests. One that cannot be reached stays ours: the next queen may reach it.
    """
    record, limits = reach.record, reach.settings.timeouts
    if not record.is_owned:
        return None
    deadline = trio.current_time() + limits.drain + limits.cascade
    has_ended = False
    with trio.move_on_at(deadline - limits.cascade / 2):
        async with cancel_when(force):
            has_ended = await _ask_to_end(reach)
    if not has_ended:
        with trio.move_on_at(deadline):
            has_ended = await _signal(reach, deadline)
    if not has_ended:
        log.warning("the hive on %s could not be ended; the next queen tries again", record.name)
        return LeftRunningError(f"the hive on {record.name} could not be ended, and may run still", node=record.name)
    await record.change(spawned_by_queen=False)
    return None


async def _ask_to_end(reach: Reach) -> bool:
    """Tell the hive to end, and wait until it no longer answers; returns whether it ended, or is not ours."""
    try:
        health = await reach.ask()
        if health is None:
            return False
        reach.check(health)
        if health.started_by == "user":
            return True  # ours has gone, and this one is not ours to end
        if (url := await reach.find()) is None:
            return False
        async with reach.connect(url) as client:
            await client.shutdown()
    except RbeeError as exc:
        log.info("the hive on %s cannot be asked to end: %s", reach.record.name, exc.message)
        return False
    try:
        while (now := await reach.ask()) is not None and now.hive_id == health.hive_id:  # noqa: ASYNC110 (on another machine)
            await trio.sleep(POLL_SECONDS)
    except ConnectionTimeoutError:
        return True
    except RbeeError:
        return False
    return now is not None  # another one has come to the address


async def _signal(reach: Reach, deadline: float) -> bool:
    record = reach.record
    try:
        async with reach.dial() as connection:
            # Half of the time, because one that has to be killed leaves its workers to another one.
            outcome = await stop(connection, record.row, seconds=_left(deadline) / 2)
            if outcome in ("crashed", "killed"):
                log.info("the hive on %s was killed; starting another one to end its workers", record.name)
                await launch.start(connection, record.row, reach.settings, lambda _: None)
                outcome = await stop(connection, record.row, seconds=_left(deadline))
    except RbeeError as exc:
        log.warning("the hive on %s: %s", record.name, exc.message)
        return False
    log.info("the hive on %s was ended over SSH: %s", record.name, outcome)
    return True


def _left(deadline: float) -> float:
    """Return the seconds that a hive may take to end."""
    return max(KILL_MARGIN_SECONDS, deadline - KILL_MARGIN_SECONDS - trio.current_time())


async def stop(connection: SshConnection, row: BeehiveRow, *, seconds: float, unless_version: str = "") -> str:
    """End the hive that a queen started there: SIGTERM, and after `seconds` SIGKILL; returns the outcome.

    `gone` (none ran), `crashed` (it was killed before, and its workers may run), `ended`, `killed`, `foreign` (a user
    started it, and it goes on), or `same` (it is of the version `unless_version`, and goes on).
    """
    lock, tenths = script.NodePaths(row.install_path).lock, str(max(1, round(seconds * 10)))
    parameters = {"lock": lock, "tenths": tenths, "unless_version": unless_version}
    facts = await script.run(connection, "stop_hive", parameters)
    return next(iter(facts), "gone")
