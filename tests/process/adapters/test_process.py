"""Processes are recognised, watched and ended, and none is ever signalled by mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from rbee.adapters.daemon import process
from rbee.adapters.daemon.process import Identity
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT = 60
"""The system call with which one thread ends, on x86-64."""
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes of the test's own, which end with it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str] = SLEEP, **options: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, **options))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def identity_of(pid: int) -> Identity:
    found = process.identify(pid)
    assert found is not None
    return found


@pytest.fixture
def stranger() -> Iterator[Identity]:
    """A process that is not our child: its parent has ended."""
    script = f"import subprocess; print(subprocess.Popen({SLEEP!r}, stdin=-3, stdout=-3, stderr=-3).pid)"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=True)
    identity = identity_of(int(done.stdout))
    yield identity
    process.send_signal(identity, signal.SIGKILL)


# Identity.


def test_a_process_has_one_identity() -> None:
    mine = identity_of(os.getpid())
    assert mine == identity_of(os.getpid())
    assert mine.pid == os.getpid()
    assert process.is_running(mine)
    assert len(mine.boot_id) == 36


def test_a_process_that_does_not_exist_has_none() -> None:
    assert process.identify(2**22 + 1) is None


def test_a_zombie_has_ended(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = spawn([sys.executable, "-S", "-c", ""])
    assert child.stdout is not None
    identity = process.identify(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.identify(child.pid) is None
    assert identity is None or not process.is_running(identity)
    assert identity is None or not process.send_signal(identity, signal.SIGTERM)


def test_a_name_with_brackets_and_spaces_does_not_matter(
    spawn: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    program = tmp_path / "a) R 1 (b"
    program.write_text("#!/bin/sh\necho up\nsleep 600 & wait\n")
    program.chmod(0o700)
    child = spawn([str(program)], start_new_session=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert process.is_running(identity_of(child.pid))
    finally:
        os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("changed", [{"started_at": 1}, {"boot_id": "another"}])
def test_a_pid_that_belongs_to_someone_else_is_never_signalled(
    spawn: Callable[..., subprocess.Popen[bytes]], changed: dict[str, object]
) -> None:
    child = spawn()
    mine = identity_of(child.pid)
    values = {"pid": mine.pid, "started_at": mine.started_at, "boot_id": mine.boot_id} | changed
    other = Identity(**values)  # type: ignore[arg-type]
    assert not process.is_running(other)
    assert process.send_signal(other, signal.SIGKILL) is False
    assert child.poll() is None
    assert process.send_signal(mine, signal.SIGKILL) is True
    assert child.wait() == -signal.SIGKILL
    assert process.send_signal(mine, signal.SIGKILL) is False


# Waiting and ending.


async def test_the_end_of_a_child_is_noticed(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = spawn()
    identity = identity_of(child.pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.wait_gone, identity)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        child.kill()


async def test_the_end_of_a_stranger_is_noticed(stranger: Identity) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.wait_gone, stranger)
        await trio.testing.wait_all_tasks_blocked()
        assert process.send_signal(stranger, signal.SIGTERM)
    assert not process.is_running(stranger)


async def test_who_has_ended_is_not_waited_for(stranger: Identity) -> None:
    await process.end(stranger, grace=10)
    with trio.fail_after(1):
        await process.wait_gone(stranger)
        # The pid lives, and is someone else's.
        await process.wait_gone(Identity(os.getpid(), 1, process.boot_id()))


async def test_who_has_a_thread_left_has_not_ended(tmp_path: Path) -> None:
    """Its first thread has: the state is that of a zombie, and what it listens on is still taken."""
    code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start();"
    end_this_thread = f"ctypes.CDLL(None).syscall({EXIT}, 0)"
    child = await process.start(
        [sys.executable, "-c", f"{code} print(1, flush=True); {end_this_thread}"], log=tmp_path / "l"
    )
    identity = process.identify(child.pid)
    assert identity is not None
    with trio.fail_after(20):
        while process.is_running(identity):  # noqa: ASYNC110 (another process's state)
            await trio.sleep(0.01)
    with trio.move_on_after(0.2) as patience:
        await process.wait_gone(identity)
    assert patience.cancelled_caught
    child.kill()
    with trio.fail_after(20):
        await process.wait_gone(identity)
        await ended(child)


async def test_waiting_can_be_cancelled_and_begun_again(stranger: Identity) -> None:
    before = _open_files()
    for _ in range(3):
        with trio.move_on_after(0.01) as scope:
            await process.wait_gone(stranger)
        assert scope.cancelled_caught
    assert _open_files() == before
    assert process.is_running(stranger)
    process.send_signal(stranger, signal.SIGKILL)
    await process.wait_gone(stranger)


async def test_who_obeys_is_not_killed(stranger: Identity) -> None:
    assert await process.end(stranger, grace=20) is False
    assert not process.is_running(stranger)


async def test_who_does_not_obey_is_killed(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = spawn(STUBBORN)
    assert child.stdout is not None
    child.stdout.readline()
    assert await process.end(identity_of(child.pid), grace=0.1) is True
    assert child.wait() == -signal.SIGKILL


async def test_ending_who_has_ended_does_nothing() -> None:
    assert await process.end(Identity(2**22 + 1, 1, process.boot_id()), grace=1) is False


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-signal.SIGSEGV, "SIGSEGV (a memory fault in native code)"),
        (-signal.SIGKILL, "SIGKILL (killed, perhaps because memory ran out)"),
        (-signal.SIGHUP, "SIGHUP"),
        (-99, "signal 99"),
    ],
)
def test_an_end_is_said_in_words(code: int, words: str) -> None:
    assert process.describe_end(code) == words


# Starting.


async def ended(child: trio.Process) -> tuple[int, bytes]:
    assert child.stdout is not None
    output = b""
    async with child.stdout as stdout:
        while chunk := await stdout.receive_some():
            output += chunk
    return await child.wait(), output


async def test_a_child_has_its_own_session_and_no_input(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getsid(0) == os.getpid(), os.getcwd(), sys.stdin.read() == '')"
    child = await process.start([sys.executable, "-c", script], log=tmp_path / "log")
    assert await ended(child) == (0, b"True / True\n")


async def test_stderr_is_added_to_a_private_log(tmp_path: Path) -> None:
    log = tmp_path / "logs/child.log"
    for word in ("one", "two"):
        child = await process.start(["/bin/sh", "-c", f"echo {word} >&2"], log=log)
        await ended(child)
    assert log.read_text() == "one\ntwo\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


async def test_what_is_given_is_all_that_stands_on_stdin(tmp_path: Path) -> None:
    child = await process.start(["/bin/cat"], log=tmp_path / "log", stdin=b"a key\n")
    assert await ended(child) == (0, b"a key\n")


async def test_a_child_that_does_not_read_its_input_does_no_harm(tmp_path: Path) -> None:
    child = await process.start(["/bin/true"], log=tmp_path / "log", stdin=b"x" * 1_000_000)
    assert await ended(child) == (0, b"")


async def test_a_held_pipe_closes_with_us(tmp_path: Path) -> None:
    child = await process.start(["/bin/cat"], log=tmp_path / "log", hold_stdin=True)
    with trio.move_on_after(0.1) as scope:
        await child.wait()
    assert scope.cancelled_caught, "it waits for its parent"
    assert child.stdin is not None
    await child.stdin.aclose()
    assert await ended(child) == (0, b"")


async def test_a_program_that_does_not_exist_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await process.start([str(tmp_path / "nothing")], log=tmp_path / "log")


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    with trio.move_on_after(0.3) as scope:
        # More than a pipe holds, to one that does not read: it is cancelled while it writes.
        await process.start([*SLEEP, mark], log=tmp_path / "log", stdin=b"x" * 1_000_000)
    assert scope.cancelled_caught
    assert _commands_with(mark) == []


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _commands_with(mark: str) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _text(path)]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_the_program_starts_itself_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, file in (("rbee.py", "rbee.py"), ("/x/rbee.pyz", "/x/rbee.pyz")):
        process.program.cache_clear()
        monkeypatch.setattr(sys, "argv", [given])
        monkeypatch.chdir("/tmp")
        assert process.program() == (sys.executable, str(Path("/tmp") / file))
    process.program.cache_clear()


def test_a_module_starts_itself_again_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(process.__file__).resolve().parents[2]
    process.program.cache_clear()
    monkeypatch.setattr(sys, "argv", [str(package / "__main__.py")])
    command = [*process.program(), "--version"]
    process.program.cache_clear()
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.startswith("rbee ")


FORKING = """\
import os, sys, time
if os.fork() == 0:
    sys.stderr.close()
    os.close(2)
print(os.getpid(), flush=True)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""
"""A program that works in a fork of its own, which has its stdout too."""


@pytest.mark.parametrize("is_blocking", [True, False])
async def test_a_child_that_takes_too_long_ends_with_all_that_it_has_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_blocking: bool
) -> None:
    monkeypatch.setattr(process, "program", lambda: (sys.executable, "-S", "-c", FORKING))
    pids = tmp_path / "pids"
    started: list[int] = []
    for seconds in (1, 2, 4, 8, 16):  # until both have come to write down who they are
        if is_blocking:
            run = partial(process.run_blocking, [str(pids)], seconds=seconds)
            assert await trio.to_thread.run_sync(run) is None
        else:
            assert await process.run([str(pids)], seconds=seconds) is None
        started = [int(line) for line in pids.read_text().split()] if pids.exists() else []
        if len(started) >= 2:
            break
    assert len(started) >= 2
    wait_until(lambda: not any(map(process.identify, started)), "they have all ended")


async def test_a_child_that_ends_says_what_it_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "program", lambda: (sys.executable, "-S", "-c", "print('hello'); raise SystemExit(3)"))
    for done in (process.run_blocking([], seconds=30), await process.run([], seconds=30)):
        assert done is not None
        assert (done.returncode, done.stdout) == (3, b"hello\n")
