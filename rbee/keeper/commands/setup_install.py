"""`rbee setup install`: installs this program on a registered node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.http import sse_client
from rbee.errors import InternalError
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, session
from rbee.wire.common import Narration
from rbee.wire.progress import Progress
from rbee.wire.registry import InstallRequest, Success

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import NodeInstallOptions
    from rbee.keeper.output.terminal import Terminal


def run(options: NodeInstallOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen copy its own program there, build it from source, or go back to the previous version."""
    request = InstallRequest(node_name=options.node, from_source=options.from_source, rollback=options.rollback)

    async def command(force: trio.Event) -> Result:
        async with session.use(settings, terminal, force, options=options) as queen:
            done = await _follow(queen, request, terminal)
        return Result(notes=(f"{done.message}.",))

    return interrupt.run(command)


async def _follow(queen: QueenClient, request: InstallRequest, terminal: Terminal) -> Success:
    try:
        async with queen.install(request) as events:
            async for event in events:
                match event.name:
                    case "narration":
                        terminal.narrate(sse_client.decode_event(event.data, Narration))
                    case "progress":
                        terminal.progress(sse_client.decode_event(event.data, Progress))
                    case "success":
                        return sse_client.decode_event(event.data, Success)
                    case _:
                        sse_client.decode_event(event.data, dict)
    except sse_client.StreamLostError as exc:
        raise InternalError("the queen exited before the installation was complete") from exc
    finally:
        terminal.end_progress()
    raise InternalError("the queen ended the stream without a result of the installation")
