"""A TCP connection of another machine, carried by an SSH connection."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import paramiko
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STREAMS: Final = trio.CapacityLimiter(1024)
"""paramiko blocks: each stream takes one or two threads for as long as it lasts."""


class Channel:
    """An open connection; its calls raise trio.BrokenResourceError once it has ended."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        channel.settimeout(None)

    async def send_all(self, data: bytes) -> None:
        await self._in_thread(partial(self._channel.sendall, data))

    async def receive(self, most: int) -> bytes:
        """Return what has come, at most `most` bytes; empty at the end."""
        return await self._in_thread(partial(self._channel.recv, most))

    def close(self) -> None:
        """Close it; calls that wait for it end."""
        self._channel.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=STREAMS, abandon_on_cancel=True)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            raise trio.BrokenResourceError from exc
