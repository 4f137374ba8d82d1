"""Runs the keeper as a process, with a state folder of its own and a stand-in for its peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from tests.kit import processes

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PEER = Path(__file__).with_name("keeper_program.py")
TEXT = "Once upon a time, the bée\nsang."
"""What the stand-in generates."""


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class Keeper:
    """The command line of one user; `env` may be changed between commands."""

    def __init__(self, home: Path, *, port: int = 0) -> None:
        self.home = home
        self.state = home / "state"
        self.port = port
        self._calls = home / "calls"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RBEE_")},
            "HOME": str(home),
            "RBEE_HOME": str(self.state),
            "RBEE_QUEEN_PORT": str(port),
            "PYTHONPATH": str(ROOT),
            "PEER_LOG": str(self._calls),
        }

    def start(
        self,
        *arguments: str | bytes,
        stdin: int = subprocess.DEVNULL,
        stdout: int | BinaryIO = subprocess.PIPE,
        **plan: object,
    ) -> subprocess.Popen[bytes]:
        """Start a command; `plan` is what its peers should do, see the stand-in."""
        command = [sys.executable, PEER, *arguments]
        env = self.env | {"PEER": json.dumps(plan)}
        return subprocess.Popen(command, env=env, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)

    def run(self, *arguments: str | bytes, data: bytes | None = None, **plan: object) -> Ended:
        """Run a command to its end; `data` is piped in."""
        stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
        with self.start(*arguments, stdin=stdin, **plan) as process:
            return finish(process, data)

    def calls(self) -> list[tuple[str, str, Any]]:
        """Return method, path and body of each call that the peers got."""
        if not self._calls.exists():
            return []
        return [tuple(json.loads(line)) for line in self._calls.read_text().splitlines()]

    def running(self) -> list[int]:
        """Return the processes that were started with this state folder and still run."""
        return list(processes.of_state(self.state))

    def has_queen(self) -> bool:
        """Whether a queen was started: an import too starts processes for a moment, such as ldconfig."""
        return any("queen" in words for words in processes.of_state(self.state).values())


def finish(process: subprocess.Popen[bytes], data: bytes | None = None) -> Ended:
    """Wait for a command's end."""
    out, err = process.communicate(data, timeout=50)
    return Ended(process.returncode, (out or b"").decode(), err.decode())


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until `condition` holds; fails after a bound."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
