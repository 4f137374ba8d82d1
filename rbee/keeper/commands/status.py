"""`rbee status`: shows what runs where, once or live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from rbee.adapters.http import sse_client
from rbee.errors import ConnectionTimeoutError
from rbee.keeper.output.result import Result
from rbee.keeper.output.screen import Screen
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, running_queen
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.views import status

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import StatusOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.running_queen import RunningQueen

REFRESH_SECONDS: Final = 2.0
"""Between two views if no event arrives: memory changes without one."""
SETTLE_SECONDS: Final = 0.3
"""Events within that time are shown together."""
ENDED: Final = "The queen has ended."


def run(options: StatusOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the state of queen, nodes and workers, or keep showing it; starts nothing."""

    async def command(_force: trio.Event) -> Result:
        if (found := await running_queen.find(settings)) is None:
            if options.watch:
                raise ConnectionTimeoutError("no queen is running", hint="`rbee up` starts one that stays")
            return Result(data=status.EMPTY, notes=(status.NO_QUEEN,))
        async with attach(settings, found, terminal) as client:
            if not options.watch:
                view = status.draw(found, await client.status(), settings, terminal.room)
                return Result(data=view.data, text=view.text, notes=tuple(filter(None, [view.note])))
            if options.json:
                await _print_changes(client, Text(terminal))
            else:
                await _watch(client, found, settings, terminal)
        return Result(notes=(ENDED,))

    return interrupt.run(command, ends_a_view=options.watch)


async def _print_changes(client: QueenClient, text: Text) -> None:
    """Print each event as one line, until the queen ends."""
    try:
        async with client.events() as events:
            async for event in events:
                values = sse_client.decode_event(event.data, dict[str, Any])
                await text.write(msgspec.json.encode({"event": event.name, **values}).decode() + "\n")
    except sse_client.StreamLostError:
        pass
    finally:
        await text.cut()


async def _watch(client: QueenClient, found: RunningQueen, settings: Settings, terminal: Terminal) -> None:
    """Show the status again after each event, until the queen ends."""
    screen = Screen(terminal)
    try:
        async with client.events() as events, screen:
            is_over = False
            while not is_over:
                view = status.draw(found, await client.status(), settings, terminal.room)
                await screen.show("\n\n".join(filter(None, [view.text, view.note])))
                with trio.move_on_after(REFRESH_SECONDS):
                    is_over = await anext(events, None) is None
                with trio.move_on_after(SETTLE_SECONDS):
                    while not is_over:
                        is_over = await anext(events, None) is None
    except sse_client.StreamLostError:
        pass
    except ConnectionTimeoutError:
        if await running_queen.find(settings) is not None:
            raise
