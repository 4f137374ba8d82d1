"""Finds out whether a worker that the queen has named is reached from here, or its answer must come by the queen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from rbee.clients.worker import WorkerClient
from rbee.errors import RbeeError
from rbee.wire.addresses import is_loopback, is_own

if TYPE_CHECKING:
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import TaskHandle

PROBE_SECONDS: Final = 2.0
"""For a worker to say which one it is. A way that is slower than that is left to the queen."""


async def is_reached(handle: TaskHandle, queen: AttachedQueen, *, seconds: float = PROBE_SECONDS) -> bool:
    """Whether that very worker answers here, decided in a moment; that it does not is remembered.

    Where the queen is on another machine, its addresses may mean others here. Neither the key nor the prompt is sent to
    an address before the worker there has named itself, and neither travels less protected than to the queen.
    """
    if queen.own is not None:
        return True
    host = urlsplit(handle.worker_url).hostname or ""
    if host in queen.unreached:
        return False
    if not _leads_elsewhere(host, queen) and await _answers(handle, seconds):
        return True
    queen.add_unreached(host)
    return False


def _leads_elsewhere(host: str, queen: AttachedQueen) -> bool:
    """Whether it is known without trying that we must not go there."""
    if queen.is_elsewhere and is_own(host):
        return True  # it would lead to this machine
    return queen.address.is_encrypted and not (is_loopback(host) and is_loopback(queen.address.machine))


async def _answers(handle: TaskHandle, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        try:
            async with WorkerClient(handle.worker_url, None, timeout=seconds) as worker:
                return (await worker.health()).worker_id == handle.worker_id
        except RbeeError:
            pass
    return False
