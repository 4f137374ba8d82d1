"""`rbee workers list`: lists the workers of all nodes, and why the last ones ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper.inference import explain_failure
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, running_queen
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.views.workers import NO_WORKERS_KNOWN, NO_WORKERS_RUN, moment, to_json, unreachable, workers_table

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import SwarmEndedWorker


def run(_options: Options, settings: Settings, terminal: Terminal) -> Result:
    """Return the workers that the running queen knows; starts nothing, because a new queen would know none."""

    async def command(_force: trio.Event) -> Result:
        if (found := await running_queen.find(settings)) is None:
            return Result(data={"workers": [], "ended": [], "unreachable": []}, notes=(NO_WORKERS_KNOWN,))
        async with attach(settings, found, terminal) as client:
            swarm = await client.workers()
        missing = unreachable(swarm.unreachable)
        parts = [
            *([workers_table(swarm.workers, terminal.room)] if swarm.workers else []),
            *(["\n".join(missing)] if missing else []),
            *_endings(swarm.ended, client),
        ]
        data = {
            "workers": to_json(swarm.workers),
            "ended": to_json(swarm.ended),
            "unreachable": to_json(swarm.unreachable),
        }
        notes = () if swarm.workers else (NO_WORKERS_RUN,)
        return Result(data=data, text="\n\n".join(parts), notes=notes)

    return interrupt.run(command)


def _endings(ended: list[SwarmEndedWorker], queen: AttachedQueen) -> list[str]:
    """Return a paragraph for each worker that ended unexpectedly; the last one with the end of its log."""
    paragraphs = []
    for worker in ended:
        name = f"worker {worker.worker_id} (pid {worker.pid}) with {worker.model_ref} on {worker.node}"
        log = queen.log_place(worker.log, worker.node)
        last = explain_failure.end_of_log(worker.last_lines) if worker is ended[-1] else ""
        paragraphs.append(f"{moment(worker.ended_at)}  {name} ended: {worker.reason}\nits log is {log}{last}")
    return [render.clean(paragraph, lines=True) for paragraph in paragraphs]
