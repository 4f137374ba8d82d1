"""Starts the hive of a node over SSH, or finds it there, and says why where that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.adapters.daemon import announce
from rbee.adapters.logs.redaction import Lines
from rbee.errors import (
    AlreadyRunningError,
    PortInUseError,
    RbeeError,
    SpawnFailedError,
    SpawnTimeoutError,
    SshFailedError,
)
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote import script
from rbee.queen.registry.identity import port_setting
from rbee.wire.common import check_base_url

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.ssh.connection import SshConnection
    from rbee.queen.hives.remote.reach import Reach
    from rbee.wire.progress import Report
    from rbee.wire.registry import BeehiveRow


RETRY_SECONDS: Final = 0.2


class Running(NamedTuple):
    """A hive that runs: its URL as the node itself knows it, its id, and whether a queen, any queen, started it."""

    url: str
    id: str
    is_queens: bool


async def launch(reach: Reach, report: Report) -> None:
    """Start the hive, or find the one of this installation, and note in the registry where it listens and whose it is.

    Raises SshFailedError, or as `start`.
    """
    record, name = reach.record, reach.record.name
    narrate(report, name, "ssh_connect", f"Connecting to {record.row.ssh_user}@{record.row.ssh_host} by SSH")
    async with reach.dial() as connection:
        narrate(report, name, "start_hive", f"Starting the hive on {name}")
        with trio.CancelScope(shield=True):  # cut half-way, it would leave a hive that nobody ends
            was_owned = record.is_owned
            # Before it runs: a queen that is killed meanwhile leaves it to the next one.
            await record.change(spawned_by_queen=True)
            try:
                found = await start(connection, record.row, reach.settings, report)
            except SshFailedError:
                raise  # it may run by now
            except RbeeError:
                await record.change(spawned_by_queen=was_owned)
                raise
            reach.vouch()
            await record.change(spawned_by_queen=found.is_queens)
            await record.located(found.url, found.id or None)


async def start(connection: SshConnection, row: BeehiveRow, settings: Settings, report: Report) -> Running:
    """Start the hive, or find the one of this installation that runs already.

    Raises what the hive says why it does not start, SpawnFailedError or SpawnTimeoutError; `details["node"]` names the
    node then.
    """
    try:
        patient_until = trio.current_time() + settings.timeouts.start
        while trio.current_time() < patient_until:
            if (found := await _start_once(connection, row, settings, report)) is not None:
                return found
            await trio.sleep(RETRY_SECONDS)  # somebody else is starting it
    except RbeeError as exc:
        exc.details.setdefault("node", row.node_name)
        raise
    raise SpawnTimeoutError("another start of the hive does not come to an end there", node=row.node_name)


async def _start_once(connection: SshConnection, row: BeehiveRow, settings: Settings, report: Report) -> Running | None:
    paths, binary = script.NodePaths(row.install_path), settings.remote.binary_path
    parameters = {
        "python": "" if binary else paths.python,
        "program": binary or paths.program,
        "config": paths.config,
        "lock": paths.lock,
        "logs": paths.logs,
        "cache": paths.cache,
        "advertise": row.address,
        "tenths": str(round(settings.timeouts.start * 10)),
    }
    ready: list[announce.Ready] = []
    refused: list[AlreadyRunningError] = []

    def on_fact(name: str, value: str) -> None:
        if name == "announced":
            try:
                found = announce.parse_line(value, report)
            except AlreadyRunningError as exc:
                refused.append(exc)
            except PortInUseError as exc:
                exc.hint = f"stop what holds it there, or give the hive another port: {port_setting(row.node_name)}"
                raise
            else:
                ready.extend([found] if found is not None else [])

    facts = await script.run(connection, "start_hive", parameters, on_fact)
    if ready:
        return Running(_checked(ready[0].url), ready[0].id, True)
    if refused:
        url, hive_id = (refused[0].details.get(name) for name in ("url", "id"))
        if not isinstance(url, str):
            return None
        return Running(_checked(url), str(hive_id or ""), facts.get("holder") == ["queen"])
    raise _not_started(facts, row, settings)


def _checked(url: str) -> str:
    """Return the URL that a hive has announced; it is stored, and a queen that could not read it would not start."""
    try:
        check_base_url(url)
    except ValueError as exc:
        raise SpawnFailedError(f"the hive does not say where it listens: {exc}") from exc
    return url


def _not_started(facts: script.Facts, row: BeehiveRow, settings: Settings) -> RbeeError:
    name = row.node_name
    if "missing" in facts:
        return SpawnFailedError(
            f"rbee is not installed there: {facts['missing'][0].rpartition('/')[2]} is missing in its install path",
            hint=f"`rbee setup install --node {name}` brings it to the node",
        )
    if "late" in facts:
        limit = settings.timeouts.start
        return SpawnTimeoutError(
            f"the hive was not ready after {limit:g} s, and was ended",
            log="hive.log",
            last_lines=_readable(facts.get("log", [])),
        )
    code = facts.get("exited", ["?"])[0]
    return SpawnFailedError(
        f"the hive ended at its start: exit code {code}", log="hive.log", last_lines=_readable(facts.get("log", []))
    )


def _readable(log: list[str]) -> list[str]:
    """Return lines of a log as they may leave the node: without stacks, folders and secrets."""
    lines = Lines("hive")
    return [entry.line.message for line in log for entry in lines.feed(f"{line}\n".encode("utf-8", "replace"))]
