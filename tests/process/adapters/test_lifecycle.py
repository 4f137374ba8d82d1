"""A daemon's signals, its parent's pipe, and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.daemon.lifecycle import Stopping
from rbee.errors import PortInUseError, RbeeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = __file__.partition("/tests/")[0]
PROGRAM = """
import os, sys, threading, time
sys.path.insert(0, {root!r})
import trio
from rbee.adapters.daemon import lifecycle
from rbee.adapters.daemon.announce import Announcer
from rbee.errors import CancelledError, PortInUseError

async def daemon(stopping):
    print("up", flush=True)
    {body}

code = lifecycle.run(daemon, Announcer({announce}), ephemeral={ephemeral})
print("ended", code, flush=True)
sys.exit(code)
"""
WAIT = (
    "await stopping.asked.wait(); print('asked', flush=True); await stopping.forced.wait(); print('urgent', flush=True)"
)
LAST_MOMENTS = {
    # The task that receives them has ended, and trio has put back the handlers that were there before.
    "as trio stops to listen": "await stopping.asked.wait()\n"
    "    class Late:\n"
    "        def task_exited(self, task):\n"
    "            if '_watch_signals' in task.name: os.kill(os.getpid(), {number})\n"
    "    trio.lowlevel.add_instrument(Late())",
    "as the interpreter ends": "import atexit; atexit.register(os.kill, os.getpid(), {number})\n"
    "    await stopping.asked.wait()",
    "as it is taken apart": "class Late:\n"
    "        def __init__(self): self.kill, self.pid = os.kill, os.getpid()\n"
    "        def __del__(self): self.kill(self.pid, {number})\n"
    "    sys.late = Late()\n"
    "    await stopping.asked.wait()",
}
WAIT_ONCE = "await stopping.asked.wait(); print('asked', flush=True)"


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a daemon with a body of our own."""
    started: list[subprocess.Popen[str]] = []

    def start(body: str, *, announce: bool = False, ephemeral: bool = False) -> subprocess.Popen[str]:
        script = PROGRAM.format(root=ROOT, body=body, announce=announce, ephemeral=ephemeral)
        child = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert line(child) == "up"
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().rstrip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["as trio stops to listen", "as the interpreter ends", "as it is taken apart"])
def test_a_signal_in_the_last_moments_changes_nothing(
    run: Callable[..., subprocess.Popen[str]], moment: str, number: signal.Signals
) -> None:
    child = run(LAST_MOMENTS[moment].format(number=int(number)))
    child.terminate()
    assert rest(child) == ("ended 0\n", "")
    assert child.returncode == 0


def test_a_daemon_that_returns_exits_with_0(run: Callable[..., subprocess.Popen[str]]) -> None:
    child = run("pass")
    assert rest(child) == ("ended 0\n", "")
    assert child.returncode == 0


def rest(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what it still writes until its end; communicate() would lose what readline() read ahead."""
    assert child.stdout is not None
    assert child.stderr is not None
    found = child.stdout.read(), child.stderr.read()
    child.wait(20)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_urges(
    run: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    child = run(WAIT)
    child.send_signal(number)
    assert line(child) == "asked"
    child.send_signal(number)
    assert line(child) == "urgent"
    assert child.wait(20) == 0


def test_a_closed_pipe_ends_an_ephemeral_daemon(run: Callable[..., subprocess.Popen[str]]) -> None:
    child = run(WAIT_ONCE, ephemeral=True)
    assert child.stdin is not None
    child.stdin.write("words are ignored\n")
    child.stdin.flush()
    child.stdin.close()
    assert line(child) == "asked"
    assert child.wait(20) == 0
    child.stdin = None


def test_a_closed_pipe_is_nothing_to_another_daemon(run: Callable[..., subprocess.Popen[str]]) -> None:
    child = run(WAIT_ONCE)
    assert child.stdin is not None
    child.stdin.close()
    child.stdin = None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0


def test_a_pipe_that_closes_after_a_signal_is_the_second_wish(run: Callable[..., subprocess.Popen[str]]) -> None:
    child = run(WAIT, ephemeral=True)
    child.send_signal(signal.SIGTERM)
    assert line(child) == "asked"
    assert child.stdin is not None
    child.stdin.close()
    child.stdin = None
    assert line(child) == "urgent"
    assert child.wait(20) == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise PortInUseError('taken', hint='stop it', port=1)", 1),
        ("raise CancelledError('given up', hint='stop it')", 130),
        (
            "async with trio.open_nursery() as nursery:\n"
            "        nursery.start_soon(trio.sleep_forever)\n"
            "        raise PortInUseError('taken', hint='stop it')",
            1,
        ),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(
    run: Callable[..., subprocess.Popen[str]], body: str, code: int
) -> None:
    child = run(body, announce=True)
    output, errors = rest(child)
    announced = json.loads(output.splitlines()[0])["error"]
    assert errors.splitlines()[-2:] == [f"rbee: {announced['message']}", "hint: stop it"]
    assert "Traceback" not in errors
    assert child.returncode == code


def test_a_bug_is_announced_without_its_traceback(run: Callable[..., subprocess.Popen[str]]) -> None:
    child = run("raise ZeroDivisionError('hunter2')", announce=True)
    output, errors = rest(child)
    announced = json.loads(output.splitlines()[0])["error"]
    assert announced["code"] == "INTERNAL_ERROR"
    assert "hunter2" not in output
    assert errors.splitlines()[-1] == "rbee: the daemon failed; its log says more"
    assert child.returncode == 1


def test_a_thread_that_hangs_does_not_keep_the_process(run: Callable[..., subprocess.Popen[str]]) -> None:
    child = run("threading.Thread(target=time.sleep, args=(600,)).start()")
    child.wait(30)
    assert line(child) == "ended 0"


def test_only_a_second_signal_is_urgent() -> None:
    stopping = Stopping()
    stopping.ask()
    stopping.ask()
    assert (stopping.asked.is_set(), stopping.forced.is_set()) == (True, False)
    stopping = Stopping()
    stopping.on_signal()
    stopping.ask()
    assert (stopping.asked.is_set(), stopping.forced.is_set()) == (True, False)
    stopping.on_signal()
    assert stopping.forced.is_set()
    assert isinstance(stopping.asked, trio.Event)
    assert issubclass(PortInUseError, RbeeError)
