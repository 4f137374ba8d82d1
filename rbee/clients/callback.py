"""The one call upwards: a worker reports to its hive where it listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.http import client as http_client
from rbee.wire.hive import WORKERS_READY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.hive import ReadyCallback


async def announce(
    hive_url: str, key: str, callback: ReadyCallback, *, timeout: float, delays: Sequence[float]
) -> None:
    """Post the ready callback, in attempts of `timeout` seconds, one after each of `delays`.

    Raises ConnectionTimeoutError when the hive does not answer, or the error it answers with.
    """
    async with http_client.connect(hive_url, key, timeout=timeout) as client:
        await http_client.call(client, "POST", WORKERS_READY, bytes, body=callback, delays=delays)
