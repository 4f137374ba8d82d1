"""Removes a model from a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.clients import queen_models
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, session
from rbee.keeper.session.child_queen import Options
from rbee.wire.decode import convert
from rbee.wire.models import NodeModelId

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.output.terminal import Terminal


def run(options: Namespace, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen remove it; a model that a worker has is kept."""
    asked = convert({"id": options.id, "node": options.node or settings.defaults.node}, NodeModelId)

    async def command(force: trio.Event) -> Result:
        async with session.use(settings, terminal, force, options=Options(options.config, options.debug)) as queen:
            done = await queen_models.remove(queen, asked, terminal.report)
        note = f"{done.id} was removed from {done.node}: {render.size(done.freed_bytes)}."
        return Result(data=msgspec.to_builtins(done), notes=(note,))

    return interrupt.run(command)
