"""Ends the hive of a node that a queen started: asks it by HTTP, and where that does not do, by a signal over SSH."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import ConnectionTimeoutError, RbeeError
from rbee.queen.hives.remote import launch

if TYPE_CHECKING:
    from rbee.queen.hives.remote.hive import RemoteHive

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 0.2
KILL_MARGIN: Final = 2.0
"""Before our own patience ends, so that we hear of it."""


async def end(hive: RemoteHive, force: trio.Event) -> None:
    """End the hive if it is ours, within the limits of draining and of the cascade.

    `force` ends the wait for its requests. One that cannot be reached stays ours: the next queen may reach it.
    """
    async with hive.changing:
        if not hive.record.is_owned:
            return
        limits, name = hive.settings.timeouts, hive.row.node_name
        deadline = trio.current_time() + limits.drain + limits.cascade
        is_over = False
        with trio.move_on_at(deadline - limits.cascade / 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, force, nursery.cancel_scope)
                is_over = await _ask_to_end(hive)
                nursery.cancel_scope.cancel()
        if not is_over:
            with trio.move_on_at(deadline):
                is_over = await _signal(hive, deadline)
        if is_over:
            await hive.record.owned(owned=False)
        else:
            log.warning("the hive on %s could not be ended; the next queen tries again", name)


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _ask_to_end(hive: RemoteHive) -> bool:
    """Tell the hive to end, and wait until it does not answer any longer; returns whether it went so."""
    try:
        health = await hive.ask()
        if health is None:
            return False
        await hive.check(health)
        if health.started_by == "user":
            return True  # ours has gone, and this one is not ours to end
        if (url := await hive.find()) is None:
            return False
        async with hive.connect(url) as client:
            await client.shutdown()
    except RbeeError as exc:
        log.info("the hive on %s cannot be asked to end: %s", hive.row.node_name, exc.message)
        return False
    try:
        while (now := await hive.ask()) is not None and now.hive_id == health.hive_id:  # noqa: ASYNC110 (on another machine)
            await trio.sleep(AGAIN_SECONDS)
    except ConnectionTimeoutError:
        return True
    except RbeeError:
        return False
    return now is not None  # another one has come to the address


async def _signal(hive: RemoteHive, deadline: float) -> bool:
    try:
        async with hive.dial() as connection:
            # Half of the time, because one that has to be killed leaves its workers to another one.
            outcome = await launch.stop(connection, hive.row, seconds=_left(deadline) / 2)
            if outcome in ("crashed", "killed"):
                log.info("the hive on %s was killed; starting another one to end its workers", hive.row.node_name)
                await launch.start(connection, hive.row, hive.settings, lambda _: None)
                outcome = await launch.stop(connection, hive.row, seconds=_left(deadline))
    except RbeeError as exc:
        log.warning("the hive on %s: %s", hive.row.node_name, exc.message)
        return False
    log.info("the hive on %s was ended over SSH: %s", hive.row.node_name, outcome)
    return True


def _left(deadline: float) -> float:
    """Return the seconds that a hive may take to end."""
    return max(KILL_MARGIN, deadline - KILL_MARGIN - trio.current_time())
