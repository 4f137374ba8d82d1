"""`rbee logs`: shows the logs of the queen's own host, or of another node, also live."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.adapters.daemon import instance
from rbee.adapters.http import sse_client
from rbee.adapters.logs import node_logs
from rbee.errors import ConnectionTimeoutError
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, running_queen, session
from rbee.keeper.session.queen_address import configured
from rbee.wire.logs import LogLine, NodeLogQuery
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import LogsOptions
    from rbee.keeper.output.terminal import Terminal

SOURCE_WIDTH: Final = len("worker-01234567")
"""A worker is named by the first eight digits of its id."""


def run(options: LogsOptions, settings: Settings, terminal: Terminal) -> Result:
    """Write the lines as they arrive, until the last one or Ctrl+C."""
    node = options.node or LOCAL_NODE  # whatever node is set for requests: what went wrong with them, the queen knows
    query = convert({"node": node, "lines": options.lines, "follow": options.follow}, NodeLogQuery)
    show = _as_json if options.json else _as_text
    text = Text(terminal)

    async def report(lines: list[LogLine]) -> None:
        if lines:
            await text.write("".join(f"{show(query.node, line)}\n" for line in lines))

    async def command(force: trio.Event) -> Result:
        try:
            if query.node == LOCAL_NODE and await _are_local(settings):
                await node_logs.read(settings.logs_dir, query, report, with_queen=True)
            else:
                async with (
                    session.use(settings, terminal, force, options=options) as queen,
                    queen.logs(query) as events,
                ):
                    async for event in events:
                        await report([sse_client.decode_event(event.data, LogLine)])
        except sse_client.StreamLostError as exc:
            raise ConnectionTimeoutError(
                "the connection to the queen was lost while reading the logs",
                hint="see whether it still runs: `rbee status`",
            ) from exc
        finally:
            await text.cut()
        return Result()

    return interrupt.run(command, ends_a_view=options.follow)


async def _are_local(settings: Settings) -> bool:
    """Whether the node `local` is this machine with our own state folder: then no daemon is needed."""
    if not configured(settings).is_named and instance.find(settings.state_dir, "queen") is not None:
        return True
    found = await running_queen.find(settings)
    return found is None or found.own is not None


def _as_json(node: str, line: LogLine) -> str:
    keys = {"time": line.time, "level": line.level, "message": line.message, "correlation_id": line.correlation_id}
    return msgspec.json.encode({"node": node, "source": line.source, **keys}).decode()


def _as_text(_node: str, line: LogLine) -> str:
    level = f"{line.level}: " if line.level not in (None, "info", "debug") else ""
    head = f"{_time(line.time):<23}  {render.clean(line.source)[:SOURCE_WIDTH]:<{SOURCE_WIDTH}}  "
    first, *others = [render.clean(part) for part in (level + line.message).splitlines()] or [""]
    # Continuation lines are indented: none may look as if another source had written it.
    return "\n".join([head + first, *(" " * len(head) + other for other in others)])


def _time(text: str | None) -> str:
    if text is None:
        return ""
    try:
        when = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return render.clean(text)[:23]
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{when.microsecond // 1000:03d}"
