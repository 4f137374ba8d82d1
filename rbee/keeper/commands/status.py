"""Shows what runs where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper import interrupt, picture, session
from rbee.keeper.result import Result

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal


def run(_options: Namespace, settings: Settings, _terminal: Terminal) -> Result:
    """Return the state of the queen, the nodes and the workers; starts nothing."""

    async def command(_hurry: trio.Event) -> Result:
        if (found := await session.find(settings)) is None:
            return Result(data=picture.NOTHING, text=picture.NO_QUEEN)
        async with session.attach(settings, found) as client:
            shown = picture.draw(found, await client.status(), settings)
        return Result(data=shown.data, text=shown.text)

    return interrupt.run(command)
