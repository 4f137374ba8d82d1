"""`rbee setup install`: installs this program on a registered node, or on all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rbee.errors import InstallFailedError, RbeeError
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.registry import InstallRequest

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import NodeInstallOptions
    from rbee.keeper.output.terminal import Terminal


def run(options: NodeInstallOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen copy its own program there, build it from source, or go back to the previous version."""
    wanted: dict[str, Any] = {"from_source": options.from_source, "rollback": options.rollback}
    if options.python is not None:
        wanted["python"] = options.python
    # Bad values are refused before anything starts.
    convert({"node_name": options.node or "all"} | wanted, InstallRequest, strict=True)

    async def install(queen: QueenClient) -> list[str]:
        if options.node is not None:
            return [await _install(queen, options.node, wanted, terminal)]
        return await _install_all(queen, wanted, terminal)

    return Result(notes=tuple(f"{message}." for message in session.ask(options, settings, terminal, install)))


async def _install(queen: QueenClient, node: str, wanted: dict[str, Any], terminal: Terminal) -> str:
    request = InstallRequest(node_name=node, **wanted)
    try:
        return (await queen.install(request, terminal.report)).message
    finally:
        terminal.end_progress()


async def _install_all(queen: QueenClient, wanted: dict[str, Any], terminal: Terminal) -> list[str]:
    """Install on one node after the other; one that fails keeps none of the others from it."""
    done: list[str] = []
    failed: dict[str, RbeeError] = {}
    for row in await queen.nodes():
        try:
            done.append(await _install(queen, row.node_name, wanted, terminal))
        except RbeeError as exc:
            failed[row.node_name] = exc
            terminal.note(f"{row.node_name}: {exc.message}")
    if failed:
        raise InstallFailedError(
            f"{len(failed)} of {len(done) + len(failed)} nodes have kept what they had: {', '.join(failed)}",
            hint="; ".join(f"{name}: {exc.hint}" for name, exc in failed.items() if exc.hint) or None,
            nodes=list(failed),
        )
    return done or ["no node is registered; `rbee install` installs on this machine"]
