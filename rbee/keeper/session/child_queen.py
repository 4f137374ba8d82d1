"""Starts a queen as a child process, and ends it."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.adapters import config
from rbee.adapters.daemon import announce, instance, process
from rbee.adapters.files import full_disk
from rbee.adapters.logs import tail
from rbee.concurrency.background import call_when, open_background
from rbee.errors import SpawnFailedError, UnloadFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options, UpOptions
    from rbee.keeper.output.terminal import Terminal

STUCK_AFTER_SECONDS: Final = 5.0
"""Seconds beyond the bounds of the cascade before a queen counts as stuck."""
EXPLAIN_AFTER_SECONDS: Final = 2.0
"""Seconds of waiting before the user is told the reason."""
SHOWN_LINES: Final = 5
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 (where the user asks for it)


class OwnQueen(NamedTuple):
    """A queen that lives as long as this command."""

    ready: announce.Ready
    child: trio.Process
    identity: process.Identity | None

    async def end(self, settings: Settings, terminal: Terminal, force: trio.Event) -> UnloadFailedError | None:
        """End the queen with everything it started, and wait until it is gone.

        Returns what did not end as it should, and had to be killed.
        """
        await _end(self.child, settings, terminal, force)
        report = None if self.identity is None else instance.exit_report_of(settings.state_dir, "queen", self.identity)
        return None if report is None else report.failure


async def ephemeral(settings: Settings, terminal: Terminal, options: Options, force: trio.Event) -> OwnQueen:
    """Start a queen that ends when we close its stdin, or when we end in any way; returns once it answers.

    Raises what the queen announces. A cancellation ends it before it leaves here.
    """
    command = _command(options, "--ephemeral")
    return await _started(await _start(command, settings, hold_stdin=True), settings, terminal, force)


async def background(settings: Settings, terminal: Terminal, options: UpOptions, force: trio.Event) -> announce.Ready:
    """Start a queen that stays; returns once it answers. A failure or cancellation ends it again."""
    flags = [] if options.keep is None else ["--keep", str(options.keep)]
    flags += ["--host", EVERYWHERE] if options.lan else []
    flags += ["--open"] if options.open else []
    child = await _start(_command(options, *flags), settings, hold_stdin=False)
    return (await _started(child, settings, terminal, force)).ready


async def _started(child: trio.Process, settings: Settings, terminal: Terminal, force: trio.Event) -> OwnQueen:
    try:
        return OwnQueen(await _listen(child, settings, terminal), child, process.identify(child.pid))
    except BaseException:
        await _end(child, settings, terminal, force)
        raise


async def _start(command: list[str], settings: Settings, *, hold_stdin: bool) -> trio.Process:
    environment = config.absolute_environment()
    try:
        return await process.start(command, log=_log(settings), hold_stdin=hold_stdin, environment=environment)
    except OSError as exc:
        error = full_disk.refused(f"no queen could be started with the state folder {settings.state_dir}", exc)
        error.hint = error.hint or "RBEE_HOME names another folder"
        raise error from exc


def _command(options: Options, *flags: str) -> list[str]:
    command = [*process.program(), "queen", "--announce", *flags]
    if options.config is not None:
        command += ["--config", options.config]
    if options.debug:
        command.append("--debug")
    return command


def _log(settings: Settings) -> Path:
    return settings.logs_dir / "queen.log"


async def _listen(child: trio.Process, settings: Settings, terminal: Terminal) -> announce.Ready:
    log = _log(settings)
    try:
        return await announce.listen(child, terminal.narrate)
    except announce.SilentEndError:
        how = process.describe_end(await child.wait())
        end_of_log = "".join(f"\n  {line}" for line in tail.last_lines(log, SHOWN_LINES))
        raise SpawnFailedError(
            f"the queen ended before it was ready: {how}{end_of_log}", hint=f"its log is {log}"
        ) from None


async def _end(child: trio.Process, settings: Settings, terminal: Terminal, force: trio.Event) -> None:
    """End a queen: its pipe or SIGTERM first; SIGTERM (again) once `force` is set; SIGKILL when it is stuck."""
    limits = settings.timeouts
    with trio.CancelScope(shield=True), trio.move_on_after(limits.drain + limits.cascade + STUCK_AFTER_SECONDS):
        if child.stdin is not None:
            await child.stdin.aclose()
        else:
            child.terminate()
        child.send_signal(signal.SIGCONT)  # one that is stopped would react to neither
        async with open_background() as nursery:
            # A queen takes the second request to end, of whichever kind, as a forced one.
            nursery.start_soon(call_when, force, child.terminate)
            nursery.start_soon(_explain, terminal)
            await child.wait()
    if child.returncode is None:
        terminal.note(f"the queen (pid {child.pid}) did not end in time and was killed; its log is {_log(settings)}")
        child.kill()
        with trio.CancelScope(shield=True):
            await child.wait()
    if child.returncode != 0:
        await _wait_for_orphan(settings, force)


async def _wait_for_orphan(settings: Settings, force: trio.Event) -> None:
    """Wait for the hive of a queen that was killed: its pipe has closed, and it ends by itself with its workers."""
    hive = instance.find(settings.state_dir, "hive")
    if hive is None or not hive.ephemeral or hive.started_by != "queen":
        return
    process.send_signal(hive.identity, signal.SIGCONT)  # one that is stopped would not notice
    with trio.move_on_after(settings.timeouts.cascade, shield=True):
        async with open_background() as nursery:
            nursery.start_soon(call_when, force, partial(process.send_signal, hive.identity, signal.SIGTERM))
            await process.wait_gone(hive.identity)


async def _explain(terminal: Terminal) -> None:
    await trio.sleep(EXPLAIN_AFTER_SECONDS)
    terminal.note("Waiting until running requests have ended; Ctrl+C ends them at once.")
