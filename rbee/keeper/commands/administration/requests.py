"""`rbee requests`: shows what became of the last requests, also live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rbee.adapters.http import sse_client
from rbee.errors import ConnectionTimeoutError
from rbee.keeper.output.result import Result
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, running_queen, session
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.views import requests as view
from rbee.wire.administration.requests import RequestInfo

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import RequestsOptions
    from rbee.keeper.output.terminal import Terminal

NONE: Final = "There were no requests yet."


def run(options: RequestsOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the last requests and those that run; or write each that ends, until the queen does, or Ctrl+C."""
    if not options.follow:
        found = session.ask(options, settings, terminal, lambda queen: queen.requests(options.lines))
        text = view.table(found, terminal.room) if found else ""
        return Result(data={"requests": msgspec.to_builtins(found)}, text=text, notes=() if found else (NONE,))

    async def command(_force: trio.Event) -> Result:
        if (found := await running_queen.find(settings)) is None:
            raise ConnectionTimeoutError("no queen is running", hint="`rbee up` starts one that stays")
        async with attach(settings, found, terminal) as queen:
            await _follow(queen, options, Text(terminal))
        return Result(notes=("The queen has ended.",))

    return interrupt.run(command, ends_a_view=True)


async def _follow(queen: QueenClient, options: RequestsOptions, text: Text) -> None:
    try:
        if not options.json:
            await text.write(f"{view.heading()}\n")
        async with queen.requests_that_end(options.lines) as events:
            async for event in events:
                request = sse_client.decode_event(event.data, RequestInfo)
                shown = msgspec.json.encode(request).decode() if options.json else view.line(request)
                await text.write(f"{shown}\n")
    except sse_client.StreamLostError:
        pass
    finally:
        await text.cut()
