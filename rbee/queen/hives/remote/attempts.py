"""Asks a daemon on another machine whether it answers, in several attempts that the user sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.errors import ConnectionTimeoutError, RbeeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def attempt(
    ask: Callable[[], Awaitable[None]],
    address: str,
    *,
    delays: Sequence[float],
    seconds: float,
    say: Callable[[str], None],
) -> list[str]:
    """Ask once after each of `delays`, `seconds` each, and say of each attempt why it failed.

    Returns nothing when one was answered, else what was said. Errors but ConnectionTimeoutError are raised.
    """
    said: list[str] = []
    for number, delay in enumerate(delays, 1):
        await trio.sleep(delay)
        try:
            with trio.fail_after(seconds):
                await ask()
        except (trio.TooSlowError, ConnectionTimeoutError) as exc:
            again = f", again after {delays[number] * 1000:.0f} ms" if number < len(delays) else ""
            said.append(
                f"Attempt {number} of {len(delays)}: {address} does not answer "
                f"({_reason(exc)}; timeout {seconds:g} s{again})"
            )
            say(said[-1])
        else:
            return []
    return said


def _reason(exc: Exception) -> str:
    attempts = exc.details.get("attempts") if isinstance(exc, RbeeError) else None
    return str(attempts[-1]).rpartition(": ")[2] if attempts else "timeout"
