"""Starts, recognises, watches and ends processes; never signals by a bare pid."""

from __future__ import annotations

import contextlib
import os
import signal as signals
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import trio

from rbee.adapters.files import full_disk, private
from rbee.wire import addresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STATE, _START_TIME = 0, 19
"""Positions in /proc/<pid>/stat after the name in parentheses (proc(5): fields 3 and 22)."""


class Identity(msgspec.Struct, frozen=True):
    """Names one process for ever: a pid is used again, but not with the same start time on the same boot.

    `started_at` counts clock ticks since boot.
    """

    pid: int
    started_at: int
    boot_id: str


@cache
def boot_id() -> str:
    """Return the id the kernel made at this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def identify(pid: int) -> Identity | None:
    """Return the identity of a process that runs now, or None; a zombie has ended."""
    if (fields := _stat(pid)) is None or fields[_STATE] in "ZX":
        return None
    return Identity(pid, int(fields[_START_TIME]), boot_id())


def is_running(process: Identity) -> bool:
    """Return whether exactly this process still runs."""
    return identify(process.pid) == process


def is_stopped(process: Identity) -> bool:
    """Return whether exactly this process is stopped, as by SIGSTOP or Ctrl+Z."""
    fields = _stat(process.pid)
    return fields is not None and fields[_STATE] == "T" and int(fields[_START_TIME]) == process.started_at


def send_signal(process: Identity, number: int) -> bool:
    """Signal exactly this process; returns False when it has ended.

    A stopped one is made to go on after a SIGTERM: it would not react to that before.

    The pidfd is opened first and the identity compared afterwards, so the pid cannot pass to another process between
    the check and the signal.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_running(process):
            return False
        signals.pidfd_send_signal(descriptor, number)
        if number == signals.SIGTERM:
            signals.pidfd_send_signal(descriptor, signals.SIGCONT)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def wait_gone(process: Identity) -> None:
    """Return once the process has ended, all its threads too; works for processes that are not our children.

    When it is killed, its first thread may be a zombie before the others have let go of its ports and files.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        fields = _stat(process.pid)
        if fields is not None and Identity(process.pid, int(fields[_START_TIME]), boot_id()) == process:
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def end(process: Identity, *, grace: float) -> bool:
    """End a process by SIGTERM, after `grace` seconds by SIGKILL; returns whether it had to be killed."""
    send_signal(process, signals.SIGTERM)
    with trio.move_on_after(grace):
        await wait_gone(process)
        return False
    send_signal(process, signals.SIGKILL)
    await wait_gone(process)
    return True


def listener(host: str, port: int) -> int | None:
    """Return the pid of the process that listens there on this machine; None where the system does not show it to us.

    One at that very address comes before one at every address.
    """
    import psutil

    found: list[tuple[bool, int]] = []
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                (address,) = map(str, connection.laddr[:1])
                if addresses.is_met(host, address):
                    found.append((addresses.is_unspecified(address), int(connection.pid)))
    return min(found)[1] if found else None


def words(pid: int) -> list[str]:
    """Return the command line of a process; empty where it has ended, or the system does not show it to us."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")[:-1]
    except OSError:
        return []


def describe_end(returncode: int) -> str:
    """Describe how a process ended, from its return code (negative for a signal)."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        name = signals.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
    words = {
        "SIGSEGV": "a memory fault in native code",
        "SIGILL": "an instruction that this processor does not have",
        "SIGABRT": "native code gave up",
        "SIGKILL": "killed, perhaps because memory ran out",
        "SIGBUS": "a file that was cut while in use, or a failing disk",
        "SIGTERM": "asked to end",
        "SIGXCPU": "it computed for longer than it may",
    }
    return f"{name} ({words[name]})" if name in words else name


@cache
def program() -> tuple[str, ...]:
    """Return the command that starts this program again: the same interpreter, and the same code."""
    file = Path(sys.argv[0]).absolute()
    if file.name != "__main__.py" or file.parent.name != "rbee":
        return (sys.executable, str(file))
    # `python -m rbee`: a child works in another folder, so it is told where the package is, and by which name it runs.
    root = str(file.parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); sys.argv[0] = {str(file)!r}; from rbee.entry import main"
    return (sys.executable, "-c", f"{code}; sys.exit(main())")


async def run(
    arguments: Sequence[str], *, seconds: float, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes] | None:
    """Run this program as a child, which may crash or hang; returns what it printed, or None past the time.

    What it has started ends with it.
    """
    with trio.move_on_after(seconds):
        return await trio.run_process(
            [*program(), *arguments],
            stdin=stdin,
            capture_stdout=True,
            stderr=subprocess.DEVNULL,
            check=False,
            process_group=0,
            deliver_cancel=_kill_all,
        )
    return None


async def _kill_all(leader: trio.Process) -> None:
    kill_group(leader.pid)


def kill_group(leader: int) -> None:
    """End a child that leads a group of its own, and has not been waited for, with all that it has forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signals.SIGKILL)


def run_blocking(arguments: Sequence[str], *, seconds: float) -> subprocess.CompletedProcess[bytes] | None:
    """Do the same where no event loop is. Raises OSError."""
    command = [*program(), *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as child:
        try:
            output, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.returncode is None:
                kill_group(child.pid)
        return subprocess.CompletedProcess(command, child.returncode, output)


async def start_quiet(arguments: Sequence[str], *, stdin: int) -> trio.Process:
    """Start this program as a child, in a process group of its own, which reads from this file and prints nothing."""
    return await trio.lowlevel.open_process(
        [*program(), *arguments],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


async def start(
    command: Sequence[str],
    *,
    log: Path,
    hold_stdin: bool = False,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> trio.Process:
    """Start a process in a session of its own, so that Ctrl+C in our terminal does not reach it.

    Its stderr is appended to `log`, and goes nowhere where the disk is too full for that; its stdout is a pipe to us.
    Its stdin holds the bytes of `stdin`, or nothing; with `hold_stdin` the pipe stays open after them, and closes when
    we end, however we end. Without `environment` it has ours. Cancelled, it leaves none.
    """
    with _open_log(log) as errors:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.PIPE if hold_stdin or stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            cwd="/",
            env=environment,
        )
    if stdin is not None:
        assert process.stdin is not None
        try:
            # A child that is gone already is noticed by its exit, which its parent waits for.
            with contextlib.suppress(trio.BrokenResourceError):
                await process.stdin.send_all(stdin)
            if not hold_stdin:
                await process.stdin.aclose()
        except trio.Cancelled:
            # The caller gets no handle of this process, so nobody else could end it.
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            raise
    return process


def _open_log(path: Path) -> IO[bytes]:
    try:
        private.make_private(path.parent)
        return os.fdopen(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab")
    except OSError as exc:
        if not full_disk.is_full(exc):
            raise
        return Path(os.devnull).open("ab")  # a process without a log is better than none
