"""`rbee models push`: sends a model file of the user to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.clients.local_model import LocalModel
from rbee.clients.upload import Upload
from rbee.errors import RbeeError
from rbee.keeper.command_line.checked import convert
from rbee.keeper.inference import explain_failure
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.queen import NodeQuery

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import PushOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.model_push import PushState


def run(options: PushOptions, settings: Settings, terminal: Terminal) -> Result:
    """Send the file, or all files of a split model; Ctrl+C ends it, and the next push goes on there."""
    node = convert({"node": options.node}, NodeQuery).node
    model = LocalModel.find(options.file)

    async def send(queen: QueenClient) -> PushState:
        receiver = queen.receiver(node)
        delays = settings.timeouts.download_delays
        return await Upload(receiver, model, node, delays, terminal.report, "rbee-keeper").run()

    try:
        state = session.ask(options, settings, terminal, send)
    except RbeeError as exc:
        explain_failure.name_node(exc, settings)
        raise
    finally:
        terminal.end_progress()
    if (row := state.model) is None:
        note = f"{node} has this very file already, as {model.reference}."
        return Result(data={"model_ref": model.reference, "node": node, "local_path": state.local_path}, notes=(note,))
    note = f"{row.model_ref} is on {node}: {row.id}, {render.size(row.size_bytes)}."
    return Result(data=msgspec.to_builtins(row), notes=(note,))
