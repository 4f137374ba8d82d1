"""`rbee workers shutdown`: ends a worker on whichever node it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import ConnectionTimeoutError, UnloadFailedError, WorkerNotFoundError
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, running_queen
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.views.workers import NO_WORKERS_KNOWN
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import WorkerOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.queen import WorkerEnding

POLL_SECONDS: Final = 0.1
"""Seconds between two questions whether the worker still runs."""


def run(options: WorkerOptions, settings: Settings, terminal: Terminal) -> Result:
    async def command(_force: trio.Event) -> Result:
        if (found := await running_queen.find(settings)) is None:
            raise WorkerNotFoundError(
                NO_WORKERS_KNOWN[:1].lower() + NO_WORKERS_KNOWN[1:].rstrip("."), hint="`rbee up` starts one"
            )
        async with attach(settings, found, terminal) as client:
            ending = await client.end_worker(options.id)
            human = ending.message[:1].upper() + ending.message[1:]
            terminal.narrate(Narration(actor="queen-rbee", action="shutdown", target=ending.worker_id, human=human))
            await _wait_until_gone(client, ending)
        ended = f"worker {ending.worker_id} on {ending.node} has ended"
        data = {"success": True, "message": ended, "worker_id": ending.worker_id, "node": ending.node}
        return Result(data=data, text=f"{ended[0].upper()}{ended[1:]}.")

    return interrupt.run(command)


async def _wait_until_gone(client: QueenClient, ending: WorkerEnding) -> None:
    """Return once the worker has ended. Raises UnloadFailedError if it had to be killed.

    The wait needs no limit: the hive kills a worker that does not end.
    """
    while True:
        swarm = await client.workers(ending.node)
        if ended := next((ended for ended in swarm.ended if ended.worker_id == ending.worker_id), None):
            raise UnloadFailedError(f"worker {ending.worker_id} on {ending.node} has ended: {ended.reason}")
        if swarm.unreachable:
            raise ConnectionTimeoutError(
                f"{ending.message}, but its node does not answer: {swarm.unreachable[0].reason}"
            )
        if all(worker.worker_id != ending.worker_id for worker in swarm.workers):
            return
        await trio.sleep(POLL_SECONDS)
