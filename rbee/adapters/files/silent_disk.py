"""Looks at files where the disk may never answer, as on a share whose server is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_limiter: Final = trio.CapacityLimiter(4)


async def look(at: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Return what the disk says, in a thread that is left behind where the caller is cancelled first.

    The few threads that then wait for ever are none of those that a daemon needs for everything else.
    """
    return await trio.to_thread.run_sync(at, *arguments, abandon_on_cancel=True, limiter=_limiter)
