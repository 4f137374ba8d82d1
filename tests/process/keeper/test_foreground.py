"""A daemon that a person starts at a terminal: it says that it answers, and that it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]


class Screen:
    """A daemon with a terminal as its stdin, stdout and stderr."""

    def __init__(self, home: Path, role: str) -> None:
        self._ours, theirs = os.openpty()
        settings = {"RBEE_HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rbee", role],
            cwd=ROOT,
            env=os.environ | settings,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        deadline = time.monotonic() + 30
        while wanted not in self.text:
            assert select.select([self._ours], [], [], max(0, deadline - time.monotonic()))[0], self.text
            try:
                self.text += os.read(self._ours, 65536).decode()
            except OSError:
                break  # the daemon has ended
        assert wanted in self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@pytest.fixture(params=["queen", "hive"])
def screen(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Screen]:
    screen = Screen(tmp_path, request.param)
    yield screen
    screen.close()


def test_it_says_where_it_answers_and_that_it_ends(screen: Screen) -> None:
    screen.read_until("Ctrl+C ends it.\r\n")
    assert "answers at http://127.0.0.1:" in screen.text
    screen.process.send_signal(signal.SIGINT)
    screen.read_until("Ctrl+C again ends running requests at once.\r\n")
    assert screen.process.wait(30) == 0
    assert len(screen.text.splitlines()) == 2


def test_it_ends_in_order_when_its_terminal_is_closed(screen: Screen, tmp_path: Path) -> None:
    screen.read_until("Ctrl+C ends it.\r\n")
    screen.process.send_signal(signal.SIGHUP)
    assert screen.process.wait(30) == 0
    assert "got SIGHUP" in next((tmp_path / "logs").glob("*.log")).read_text()


@pytest.mark.parametrize("role", ["queen", "hive"])
def test_it_says_so_without_a_terminal_too(tmp_path: Path, role: str) -> None:
    """In a container, a journal, or a file: `rbee queen 2> queen.err &`."""
    settings = {"RBEE_HOME": str(tmp_path), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "rbee", role],
        cwd=ROOT,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"The {role} answers at http://127.0.0.1:".encode())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err.count(b"\n")) == (0, b"", 1)
    assert err.startswith(b"Ending ")
