"""Lists the workers of all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper import interrupt, session
from rbee.keeper.result import Result
from rbee.keeper.swarm import NO_QUEEN, to_json, workers_table

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal


def run(_options: Namespace, settings: Settings, _terminal: Terminal) -> Result:
    """Return what the running queen knows; starts nothing, since a new queen would know of no worker."""

    async def command(_hurry: trio.Event) -> Result:
        if (found := await session.find(settings)) is None:
            return Result(data={"workers": []}, notes=(NO_QUEEN,))
        async with session.attach(settings, found) as client:
            workers = await client.workers()
        return Result(data={"workers": to_json(workers)}, text=workers_table(workers))

    return interrupt.run(command)
