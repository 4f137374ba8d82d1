"""Completes an error with why a worker ended, the end of its log, and where that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.clients.wait_ready import ENDED, WorkerUnreachedError
from rbee.errors import DrainingError, NodeNotFoundError, RbeeError, WorkerFailedError
from rbee.keeper.session import queen_address
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.session.attached_queen import AttachedQueen


def name_node(error: RbeeError, settings: Settings) -> None:
    """Name the node in the message, if the queen knows it: a daemon's own words are about "here".

    `local` is the queen's own host, which is named where that is another machine.
    """
    if (node := error.details.get("node")) is not None and not isinstance(error, NodeNotFoundError):
        machine = queen_address.machine_elsewhere(settings) if node == LOCAL_NODE else None
        where = f" ({machine})" if machine is not None else ""
        error.message = f"node {node}{where}: {error.message}"


async def explained(error: WorkerFailedError, request_id: str, queen: QueenClient, *, has_text: bool) -> RbeeError:
    """Return an error with why its worker ended, as the queen knows it; a worker that has not ended adds nothing.

    Where the model could not be loaded, that is the error. A worker that was told to end is no failure, unless the user
    `has_text` of it: then another one would begin anew.
    """
    try:
        reason = await queen.why_failed(request_id)
    except RbeeError:  # also a queen of an earlier version
        return error
    if reason is None or (has_text and isinstance(reason, DrainingError)):
        return error
    log = end_of_log(reason.details.get("last_lines"))
    if isinstance(error, WorkerUnreachedError):
        error.message = ENDED
    if isinstance(reason, WorkerFailedError):
        error.message += f"\n{reason.message}"
        reason = error
    elif not isinstance(reason, DrainingError):
        reason.hint = error.hint
    reason.message += log
    return reason


def add_log(error: RbeeError, queen: AttachedQueen) -> None:
    """Add to an error of a worker's start what the hive sent of its log, and where that is."""
    error.message += end_of_log(error.details.get("last_lines"))
    log = error.details.get("log")
    if isinstance(log, str):
        where = f"its log is {queen.log_place(log, str(error.details.get('node', LOCAL_NODE)))}"
        error.hint = f"{error.hint}; {where}" if error.hint else where


def end_of_log(lines: object) -> str:
    """Return a paragraph with the end of a log; empty if there is none."""
    if not isinstance(lines, list) or not lines:
        return ""
    return "".join(["\nthe end of its log:", *(f"\n  {line}" for line in lines)])
