"""Finds the way to a hive that was started: directly or through SSH, in attempts that the user sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.errors import ConnectionTimeoutError, RbeeError
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote.reach import HEALTH_SECONDS
from rbee.queen.registry.identity import AnotherHiveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.queen.hives.remote.reach import Reach
    from rbee.wire.progress import Report


async def choose_way(reach: Reach, report: Report) -> str:
    """Return the URL at which the hive answers, and note in the registry whether it is through SSH.

    The node's `tunnel` says what may be tried. Raises ConnectionTimeoutError, or why the hive cannot be used.
    """
    tunnel, limits = reach.record.tunnel, reach.settings.timeouts
    failed: list[str] = []
    if tunnel != "always":
        # Where there is another way, one attempt is enough.
        patience = (limits.connect_delays, limits.connect) if tunnel == "never" else ((0.0,), HEALTH_SECONDS)
        try:
            if await _answers(reach, reach.direct_url, *patience, report, failed):
                await reach.record.change(is_tunnelled=False)
                return reach.direct_url
        except AnotherHiveError as exc:
            if tunnel == "never":
                raise
            failed.append(exc.message)
            narrate(report, reach.record.name, "connect_retry", exc.message)
    if tunnel != "never":
        if failed:
            human = f"{reach.address} cannot be reached; going through SSH"
            narrate(report, reach.record.name, "ssh_tunnel", human)
        url = await reach.open_tunnel()
        if await _answers(reach, url, limits.connect_delays, limits.connect, report, failed):
            await reach.record.change(is_tunnelled=True)
            return url
    raise _unreached(reach, failed)


async def _answers(
    reach: Reach, url: str, delays: Sequence[float], seconds: float, report: Report, failed: list[str]
) -> bool:
    """Ask once after each of `delays`, `seconds` each, and report why each attempt failed; `failed` gets that too."""
    for number, delay in enumerate(delays, 1):
        await trio.sleep(delay)
        try:
            with trio.fail_after(seconds):
                reach.check(await reach.greet(url, seconds))
        except (trio.TooSlowError, ConnectionTimeoutError) as exc:
            again = f", again after {delays[number] * 1000:.0f} ms" if number < len(delays) else ""
            human = (
                f"Attempt {number} of {len(delays)}: {reach.address} does not answer "
                f"({_reason(exc)}; timeout {seconds:g} s{again})"
            )
            failed.append(human)
            narrate(report, reach.record.name, "connect_retry", human)
        else:
            return True
    return False


def _reason(exc: Exception) -> str:
    attempts = exc.details.get("attempts") if isinstance(exc, RbeeError) else None
    return str(attempts[-1]).rpartition(": ")[2] if attempts else "timeout"


def _unreached(reach: Reach, failed: list[str]) -> ConnectionTimeoutError:
    name = reach.record.name
    hint = f"check that the hive runs on {name}, and that no firewall is in between"
    if reach.record.row.tunnel == "never":
        hint += f"; `rbee setup update-node --name {name} --tunnel auto` goes through SSH"
    return ConnectionTimeoutError(
        f"the hive did not answer at {reach.address} in {len(failed)} attempts", hint=hint, node=name, attempts=failed
    )
