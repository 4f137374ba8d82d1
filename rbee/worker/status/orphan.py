"""Ends an orphaned worker: no hive follows it, and no request runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.worker.status.status import Status

log = logging.getLogger(__name__)


async def end_when_orphaned(status: Status, patience: float, end: Callable[[], None]) -> None:
    """Call `end` once the worker was orphaned for `patience` seconds without a break; runs until then.

    A hive that lives holds the worker's event stream, and one that starts after a crash opens it again. So a hive may
    die and come back without harm, and when it does not come back, memory is not held for ever.
    """
    while True:
        with trio.move_on_after(patience) as alone:
            await status.wait_until(lambda now: not now.is_orphaned)
        if alone.cancelled_caught:
            log.warning("no hive has followed this worker for %g s: it ends", patience)
            end()
            return
        await status.wait_until(lambda now: now.is_orphaned)
