"""Keeps an error that nobody foresaw to the one thing that it happens in, where it would end the daemon."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import InternalError, RbeeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 10.0
"""Seconds before a service that has failed runs again: doubled each time, so that a lasting fault costs nothing."""
STEADY_SECONDS: Final = 60.0
"""A service that has run for so long before it fails again begins with the first pause."""


def expected(failure: BaseException) -> RbeeError | None:
    """Return the error of the catalogue that `failure` is, or the first of those that nurseries put into groups.

    None for a bug: something else than errors of the catalogue is among them.
    """
    group = failure if isinstance(failure, BaseExceptionGroup) else BaseExceptionGroup("", [failure])
    error: RbeeError | BaseExceptionGroup[RbeeError] | None
    error, rest = group.split(RbeeError)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if rest is None else None


def as_error(failure: BaseException, doing: str) -> RbeeError:
    """Return the error for those who wait; a fault of ours is logged, and becomes an InternalError."""
    if (error := expected(failure)) is not None:
        return error
    log.error("%s failed unexpectedly", doing, exc_info=failure)
    return InternalError(f"{doing} failed unexpectedly; the daemon's log says more")


def contained(doing: str, then: Callable[[RbeeError], object] | None = None) -> AbstractContextManager[None, bool]:
    """Have the block's error end the block alone; `then` takes it, for those who wait.

    A cancellation passes on. A block that a cancel scope ends stands around that scope: what the scope lets through may
    be a group of errors.
    """
    return _Contained(doing, then)


class _Contained(AbstractContextManager[None, bool]):
    def __init__(self, doing: str, then: Callable[[RbeeError], object] | None) -> None:
        self._doing = doing
        self._then = then

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> bool:
        rest: BaseException | None = None
        if isinstance(failure, BaseExceptionGroup):
            failure, rest = failure.split(Exception)
        if isinstance(failure, Exception):
            self._take(failure)
        elif rest is None:
            return False
        if rest is not None:
            raise rest
        return True

    def _take(self, failure: Exception) -> None:
        if self._then is not None:
            self._then(as_error(failure, self._doing))
        elif (error := expected(failure)) is not None:
            log.warning("%s failed: %s", self._doing, error.message)
        else:
            log.error("%s failed unexpectedly", self._doing, exc_info=failure)


async def keep_running(doing: str, service: Callable[[], Awaitable[None]]) -> None:
    """Run `service` until it returns, and anew after a pause whenever it fails."""
    pause = 0.0
    while True:
        with contained(doing):
            if pause:
                await trio.sleep(pause)
            started = trio.current_time()
            try:
                await service()
            except Exception:
                if trio.current_time() - started >= STEADY_SECONDS:
                    pause = 0.0
                raise
            return
        pause = min(2 * pause or FIRST_PAUSE, LAST_PAUSE)
