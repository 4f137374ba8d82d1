"""What the queen needs of a node's hive, wherever that runs, and what it reports of its work there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import trio

from rbee.clients.hive import HiveClient
from rbee.errors import UnloadFailedError
from rbee.wire.common import Narration
from rbee.wire.model_copy import Source
from rbee.wire.progress import Report

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rbee.queen.hives.mirror import Devices

Find = Callable[[HiveClient, str, Report], Awaitable[list[Source]]]
"""Takes a connection to a node's hive and a model's reference; returns the other nodes that have the model.

A file of the queen's own host is brought to the node instead, which is reported.
"""


async def no_sources(_hive: HiveClient, _reference: str, _report: Report) -> list[Source]:
    """Return no source: there is no other node."""
    await trio.lowlevel.checkpoint()
    return []


def narrate(report: Report, node: str, action: str, human: str) -> None:
    """Report `action` on `node`, in words for people."""
    report(Narration(actor="queen-rbee", action=action, target=node, human=human))


class LeftRunningError(UnloadFailedError):
    """The hive could not be ended now, and may run still; the next queen tries again."""


class Absence(NamedTuple):
    """Why a hive does not answer, as far as that is known without going to its machine."""

    state: Literal["not started", "off", "unreachable"]
    reason: str


class HiveLink(Protocol):
    """The way to one hive."""

    @property
    def absence(self) -> Absence:
        """Why `find` has returned None the last time."""
        ...

    @property
    def is_direct(self) -> bool:
        """Whether others reach the workers at their own addresses; else only the queen does."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether the hive runs on the queen's own host, and reaches whatever it reaches."""
        ...

    @property
    def is_everywhere(self) -> bool:
        """Whether the workers listen on every address of the queen's own host, whatever their URLs say."""
        ...

    @property
    def version(self) -> str:
        """The version of the hive, once it has answered."""
        ...

    def worker_url(self, url: str) -> str:
        """Return the URL at which the queen reaches a worker that the hive calls `url`."""
        ...

    def outside(self, url: str) -> str | None:
        """Return the URL at which other machines reach the hive that the queen reaches at `url`; None where none do."""
        ...

    async def run(self) -> None:
        """Do what the link needs while it is used, until cancelled."""
        ...

    async def end(self, force: trio.Event) -> UnloadFailedError | None:
        """End the hive if a queen started it, in a bounded time; `force` ends the wait for its requests.

        Returns what did not end as it should, as far as the queen can learn of it: LeftRunningError for a hive that may
        run still.
        """
        ...

    async def find(self) -> str | None:
        """Return the URL of the hive if it runs, else None; starts nothing. Raises why it cannot be used."""
        ...

    async def ensure(self, report: Report) -> str:
        """Return the URL of the hive, started if need be; raises why it could not be."""
        ...

    async def devices(self) -> Devices:
        """Return what is known of the node's devices without asking its hive."""
        ...

    def connect(self, url: str) -> AbstractAsyncContextManager[HiveClient]:
        """Open a connection to the hive at `url`."""
        ...
