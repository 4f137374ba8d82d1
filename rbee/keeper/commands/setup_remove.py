"""Forgets a registered node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper import interrupt, session
from rbee.keeper.result import Result
from rbee.keeper.start import Options

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal


def run(options: Namespace, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen end the node's hive, if a queen started it, and forget the node."""

    async def command(hurry: trio.Event) -> Result:
        async with session.use(settings, terminal, hurry, options=Options(options.config, options.debug)) as queen:
            await queen.remove_node(options.name, terminal.narrate)
        note = f"Node {options.name} was removed from the registry. What is installed there stays."
        return Result(notes=(note,))

    return interrupt.run(command)
