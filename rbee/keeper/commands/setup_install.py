"""`rbee setup install`: installs this program on a registered node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper.command_line.checked import convert
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.registry import InstallRequest

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import NodeInstallOptions
    from rbee.keeper.output.terminal import Terminal


def run(options: NodeInstallOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen copy its own program there, build it from source, or go back to the previous version."""
    values = {"node_name": options.node, "from_source": options.from_source, "rollback": options.rollback}
    request = convert(values, InstallRequest, strict=True)
    try:
        done = session.ask(options, settings, terminal, lambda queen: queen.install(request, terminal.report))
    finally:
        terminal.end_progress()
    return Result(notes=(f"{done.message}.",))
