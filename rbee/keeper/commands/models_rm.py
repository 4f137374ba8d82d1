"""`rbee models rm`: removes a model from a node's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.errors import InvalidRequestError
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire import model_ref
from rbee.wire.models import NodeModelId

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import ModelIdOptions
    from rbee.keeper.output.terminal import Terminal


def run(options: ModelIdOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen remove the model; one that a worker uses is refused."""
    if options.id.removeprefix("builtin:") in model_ref.BUILTIN_FILES:
        raise InvalidRequestError(
            f"{options.id} ships with rbee and cannot be removed; it is in the program's own file", field="id"
        )
    wanted = convert({"id": options.id, "node": options.node or settings.defaults.node}, NodeModelId)
    removed = session.ask(options, settings, terminal, lambda queen: queen.remove_model(wanted, terminal.report))
    note = f"{removed.id} was removed from {removed.node}: {render.size(removed.freed_bytes)}."
    return Result(data=msgspec.to_builtins(removed), notes=(note,))
