"""Starts and ends the hive of a node over an SSH connection, and says why where that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.adapters.daemon import announce
from rbee.adapters.logs.redaction import Lines
from rbee.errors import AlreadyRunningError, RbeeError, SpawnFailedError, SpawnTimeoutError
from rbee.queen.hives.remote import script as remote_script
from rbee.queen.hives.remote.install import PYTHON

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.ssh.connection import Connection
    from rbee.wire.progress import Report
    from rbee.wire.registry import BeehiveRow


AGAIN_SECONDS: Final = 0.2


class Running(NamedTuple):
    """A hive that runs: its URL as the node itself knows it, its id, and whether a queen, any queen, started it."""

    url: str
    id: str
    is_queens: bool


async def start(connection: Connection, row: BeehiveRow, settings: Settings, report: Report) -> Running:
    """Start the hive, or find the one of this installation that runs already.

    Raises what the hive says why it does not start, SpawnFailedError or SpawnTimeoutError; `details["node"]` names the
    node then.
    """
    try:
        patient_until = trio.current_time() + settings.timeouts.start
        while trio.current_time() < patient_until:
            if (found := await _start_once(connection, row, settings, report)) is not None:
                return found
            await trio.sleep(AGAIN_SECONDS)  # somebody else is starting it
    except RbeeError as exc:
        exc.details.setdefault("node", row.node_name)
        raise
    raise SpawnTimeoutError("another start of the hive does not come to an end there", node=row.node_name)


async def _start_once(connection: Connection, row: BeehiveRow, settings: Settings, report: Report) -> Running | None:
    limits, binary = settings.timeouts, settings.remote.binary_path
    parameters = {
        "python": "" if binary else f"{row.install_path}/bin/{PYTHON}",
        "program": binary or f"{row.install_path}/bin/rbee",
        "config": f"{row.install_path}/config.toml",
        "lock": lock_of(row),
        "logs": f"{row.install_path}/state/logs",
        "cache": f"{row.install_path}/cache",
        "advertise": row.ssh_host,
        "tenths": str(round(limits.start * 10)),
    }
    ready: list[announce.Ready] = []
    refused: list[AlreadyRunningError] = []

    def heard(name: str, value: str) -> None:
        if name == "announced":
            try:
                found = announce.parse_line(value, report)
            except AlreadyRunningError as exc:
                refused.append(exc)
            else:
                ready.extend([found] if found is not None else [])

    said = await remote_script.run(connection, "start_hive", parameters, heard)
    if ready:
        return Running(ready[0].url, ready[0].id, True)
    if refused:
        url, hive_id = (refused[0].details.get(name) for name in ("url", "id"))
        if not isinstance(url, str):
            return None
        return Running(url, str(hive_id or ""), said.get("holder") == ["queen"])
    raise _not_started(said, row, settings)


def lock_of(row: BeehiveRow) -> str:
    """Return the file in which the hive of this installation says where it is, and which process."""
    return f"{row.install_path}/state/hive.lock"


def _not_started(said: remote_script.Said, row: BeehiveRow, settings: Settings) -> RbeeError:
    name = row.node_name
    if "missing" in said:
        return SpawnFailedError(
            f"rbee is not installed there: {said['missing'][0].rpartition('/')[2]} is missing in its install path",
            hint=f"`rbee setup install --node {name}` brings it to the node",
        )
    if "late" in said:
        limit = settings.timeouts.start
        return SpawnTimeoutError(
            f"the hive was not ready after {limit:g} s, and was ended",
            log="hive.log",
            last_lines=_readable(said.get("log", [])),
        )
    code = said.get("exited", ["?"])[0]
    return SpawnFailedError(
        f"the hive ended at its start: exit code {code}", log="hive.log", last_lines=_readable(said.get("log", []))
    )


def _readable(log: list[str]) -> list[str]:
    """Return lines of a log as they may leave the node: without stacks, folders and secrets."""
    lines = Lines("hive")
    return [entry.line.message for line in log for entry in lines.feed(f"{line}\n".encode("utf-8", "replace"))]


async def stop(connection: Connection, row: BeehiveRow, *, seconds: float, unless_version: str = "") -> str:
    """End the hive that a queen started there: SIGTERM, and after `seconds` SIGKILL; returns what became of it.

    `gone` (none ran), `crashed` (it was killed before, and its workers may run), `ended`, `killed`, `foreign` (a user
    started it, and it goes on), or `same` (it is of the version `unless_version`, and goes on).
    """
    parameters = {"lock": lock_of(row), "tenths": str(max(1, round(seconds * 10))), "unless_version": unless_version}
    said = await remote_script.run(connection, "stop_hive", parameters)
    return next(iter(said), "gone")
